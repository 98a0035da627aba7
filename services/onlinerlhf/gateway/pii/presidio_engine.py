"""Presidio behind ProcessScanner: `python -m onlinerlhf.gateway.pii.presidio_engine --model en_core_web_lg`.

Presidio and a spaCy model are installed by whoever wants them; nothing is downloaded here. By default only names are
asked for: everything else the patterns find better.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

KINDS = {
    "PERSON": "person_name",
    "LOCATION": "street_address",
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "CREDIT_CARD": "card",
    "IBAN_CODE": "iban",
    "US_SSN": "us_ssn",
    "US_PASSPORT": "passport",
    "CRYPTO": "crypto_wallet",
}
"""Presidio's entities and our kinds."""

Triple = tuple[str, int, int]
Analyse = Callable[[str], list[Triple]]


class EngineMissing(Exception):
    """Presidio or its model is not installed; the message is one line."""


def main(arguments: list[str] | None = None) -> int:
    """Answer until standard input ends."""
    parser = argparse.ArgumentParser(description="Presidio, one JSON object a line")
    parser.add_argument("--model", default="en_core_web_lg", help="an installed spaCy model, or its directory")
    parser.add_argument("--language", default="en")
    parser.add_argument("--entities", default="PERSON", help=f"with commas between, of {', '.join(KINDS)}")
    parser.add_argument("--score", type=float, default=0.5, help="findings below are left out")
    chosen = parser.parse_args(arguments)
    try:
        entities = _known(chosen.entities)
        analyse = presidio(model=chosen.model, language=chosen.language, entities=entities, score=chosen.score)
    except EngineMissing as error:
        print(json.dumps({"error": str(error)}), flush=True)
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"ready": True}), flush=True)
    for answer in answers(iter(sys.stdin.readline, ""), analyse):
        print(answer, flush=True)
    return 0


def answers(questions: Iterator[str], analyse: Analyse) -> Iterator[str]:
    """One line for each line."""
    for line in questions:
        question = json.loads(line)
        yield json.dumps({"id": question["id"], "findings": analyse(question["text"])})


def presidio(*, model: str, language: str, entities: list[str], score: float) -> Analyse:
    """An analyser with this model."""
    if find_spec("presidio_analyzer") is None or find_spec("spacy") is None:
        raise EngineMissing("Presidio is not installed here: pip install presidio-analyzer and a spaCy model")
    spacy, analyzer, nlp = map(import_module, ("spacy", "presidio_analyzer", "presidio_analyzer.nlp_engine"))
    # Presidio would download a missing model by itself.
    if not (spacy.util.is_package(model) or Path(model).is_dir()):
        raise EngineMissing(f"the spaCy model {model} is not installed here")
    configuration: dict[str, Any] = {
        "nlp_engine_name": "spacy",
        "models": [{"lang_code": language, "model_name": model}],
    }
    nlp_engine = nlp.NlpEngineProvider(nlp_configuration=configuration).create_engine()
    engine = analyzer.AnalyzerEngine(nlp_engine=nlp_engine, supported_languages=[language])

    def analyse(text: str) -> list[Triple]:
        results = engine.analyze(text=text, language=language, entities=entities, score_threshold=score)
        return [
            (KINDS[result.entity_type], result.start, result.end) for result in results if result.end > result.start
        ]

    return analyse


def _known(entities: str) -> list[str]:
    names = [name.strip() for name in entities.split(",")]
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        raise EngineMissing(f"no entity is called {', '.join(unknown)}; there are {', '.join(KINDS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
