"""What the screen of personal data and secrets finds, what it takes for something else, and what it costs.

Recall and false alarms are of the labelled set in tests/pii, which the detectors were written beside; a second list of
negatives was written afterwards and changed nothing. The values of `faker` are random per locale, many of them no valid
numbers (banks that do not exist, telephone numbers of no exchange), in sentences without a word that says what they
are, and again with one. After a first look at them, with another seed, formats were added that are real (old lengths
of JCB and Visa, Maestro of 12 digits, temporary NI numbers, compact national telephone numbers, IPv6 beyond 2000::/3);
nothing was changed for the `other_countries`. Speed is of one thread and counts CPU time.
"""

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from claims import Claim
from faker import Faker

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from onlinerlhf.gateway.pii import find
from pii.cases import Case
from pii.hostile import HOSTILE, hostile
from pii.negatives import NEGATIVES
from pii.positives import BEST_EFFORT, STRUCTURED
from pii.second_negatives import SECOND_NEGATIVES

NUM_VALUES = 50
"""Of each kind and locale."""
LOCALES = ("en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "zh_CN", "ja_JP", "en_IN", "pt_BR")
OTHER_LOCALES = ("it_IT", "nl_NL", "pl_PL", "sv_SE", "en_AU", "en_CA", "es_MX", "ko_KR", "pt_PT", "tr_TR")
CARRIERS = ("{}", "My details: {} thanks", "please note {}, ok?", "这是{}请看", "(see {})")
OTHER = "other_countries_"
CUES = {
    "phone": "call me: {}",
    "national_id": "SSN / NI / ID number: {}",
    "card": "my card {}",
    "name": "my name is {}.",
}
PROMPT_CHARACTERS = 830
_TEXT = (
    "the quick brown fox explains how to write a function that sorts numbers and returns list of results please "
    "describe it in detail with examples 2024 3.5 10 (1) 1,000 x=42 https://example.com/docs Monday, e.g. 'yes' "
    "Python 3.11: - step-by-step because however, "
    "every answer should be short and clear; do not use jargon. What is the difference?"
)
WORDS = _TEXT.split()
CHINESE = "请解释一下量子力学的基本原理，并举例说明它在日常生活中的应用。2023年的人口是多少？"


def main() -> list[Claim]:
    """All claims."""
    return [*_own_set(), *_made_up_by_faker(), *_speed(), _worst_hostile()]


def _own_set() -> Iterator[Claim]:
    found = Counter(case.kind for case in (*STRUCTURED, *BEST_EFFORT) if case.is_found(find(case.text)))
    total = Counter(case.kind for case in (*STRUCTURED, *BEST_EFFORT))
    for kind, count in total.items():
        yield _reported(f"screening_recall_{kind}", found[kind] / count, f"of_{count}")
    num_found = sum(count for kind, count in found.items() if kind.is_structured)
    recall = num_found / len(STRUCTURED)
    yield Claim(
        name="screening_recall_structured", value=recall, unit=f"of_{len(STRUCTURED)}", goal=">=0.95", ok=recall >= 0.95
    )
    alarms = sum(bool(find(text)) for text in NEGATIVES) / len(NEGATIVES)
    yield Claim(
        name="screening_false_alarms", value=alarms, unit=f"of_{len(NEGATIVES)}", goal="<=0.01", ok=alarms <= 0.01
    )
    second = sum(bool(find(text)) for text in SECOND_NEGATIVES) / len(SECOND_NEGATIVES)
    yield Claim(
        name="screening_false_alarms_second_list",
        value=second,
        unit=f"of_{len(SECOND_NEGATIVES)}",
        goal="<=0.01",
        ok=second <= 0.01,
    )


def _made_up_by_faker() -> Iterator[Claim]:
    found: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for locale in (*LOCALES, *OTHER_LOCALES):
        fake = Faker(locale)
        fake.seed_instance(0)
        for kind, make in (_makers if locale in LOCALES else _other_makers)(fake, locale).items():
            for number in range(NUM_VALUES):
                value = make()
                texts = {kind: CARRIERS[number % len(CARRIERS)]}
                word = CUES.get(kind.removeprefix(OTHER))
                if word is not None:
                    texts[f"{kind}_after_a_word"] = word
                for name, carrier in texts.items():
                    total[name] += 1
                    found[name] += _is_found(carrier, value)
    for name, count in total.items():
        yield _reported(f"screening_faker_recall_{name}", found[name] / count, f"of_{count}")


def _makers(fake: Faker, locale: str) -> dict[str, Callable[[], str]]:
    makers: dict[str, Callable[[], str]] = {
        "email": fake.email,
        "phone": fake.phone_number,
        "card": fake.credit_card_number,
        "ipv4": fake.ipv4_public,
        "ipv6": fake.ipv6,
        "street_address": fake.street_address,
        "name": fake.name,
    }
    if locale in ("en_US", "en_GB", "fr_FR", "zh_CN"):
        # Elsewhere faker falls back to American numbers, with areas that are never given out.
        makers["national_id"] = fake.ssn
    if locale == "es_ES":
        makers["es_dni"], makers["es_nie"] = fake.nif, fake.nie
    if locale not in ("en_IN", "zh_CN"):
        # There its IBANs are British ones with a digit too few.
        makers["iban"] = fake.iban
    return makers


def _other_makers(fake: Faker, _: str) -> dict[str, Callable[[], str]]:
    return {f"{OTHER}email": fake.email, f"{OTHER}phone": fake.phone_number, f"{OTHER}iban": fake.iban}


def _is_found(carrier: str, value: str) -> bool:
    start = carrier.index("{}")
    end = start + len(value)
    return any(
        min(found.end, end) - max(found.start, start) >= 0.9 * len(value) for found in find(carrier.format(value))
    )


def _speed() -> Iterator[Claim]:
    draw = random.Random(0)
    english = [" ".join(draw.choice(WORDS) for _ in range(300))[:PROMPT_CHARACTERS] for _ in range(1000)]
    chinese = [(CHINESE * 30)[start : start + PROMPT_CHARACTERS] for start in range(200)]
    rate = _rate(english)
    yield Claim(name="screening_prompts_per_second", value=rate, unit="prompts/s", goal=">=4000", ok=rate >= 4000)
    yield _reported("screening_prompts_per_second_chinese", _rate(chinese), "prompts/s")
    cases: list[Case] = [*STRUCTURED]
    mixed = [f"{text[:400]} {draw.choice(cases).text} {text[400:700]}" for text in english]
    yield _reported("screening_prompts_per_second_each_with_a_finding", _rate(mixed), "prompts/s")


def _rate(texts: list[str]) -> float:
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        for text in texts:
            find(text)
        best = min(best, time.process_time() - start)
    return len(texts) / best


def _worst_hostile() -> Claim:
    worst = max(HOSTILE, key=lambda name: _milliseconds(hostile(name, 20_000)))
    value = _milliseconds(hostile(worst, 20_000))
    print(f"the worst hostile string: {worst}", file=sys.stderr)
    return Claim(name="screening_worst_hostile_20_kb", value=value, unit="ms", goal="<50", ok=value < 50)


def _milliseconds(text: str) -> float:
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        find(text)
        best = min(best, time.process_time() - start)
    return 1000 * best


def _reported(name: str, value: float, unit: str) -> Claim:
    return Claim(name=name, value=value, unit=unit, goal="reported", ok=True)


if __name__ == "__main__":
    for claim in main():
        print(claim)
