"""Texts whose words are not the user's: what an application puts around every prompt. Ignored when prompts are
compared, or all prompts of one application would be duplicates of each other. Pure but for `load`.

A file has one JSON string a line; `{}` stands where the user's own words go.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.gateway.admission.normalise import comparable

_GAP = "{}"


@dataclass(frozen=True, slots=True)
class Templates:
    """Registered templates, the longest first."""

    literals: tuple[tuple[str, ...], ...] = ()
    """Of each template the texts before, between and after its gaps, comparable."""

    @classmethod
    def of(cls, templates: Iterable[str]) -> "Templates":
        """From texts with gaps."""
        taken = {tuple(comparable(part) for part in template.split(_GAP)) for template in templates}
        return cls(tuple(sorted(taken, key=lambda literals: (-sum(map(len, literals)), literals))))

    def content(self, text: str) -> str:
        """The user's own words in a comparable text: what fills the gaps of the first template that fits. All of it
        where none does, or where nothing would be left."""
        for literals in self.literals:
            gaps = _gaps(text, literals)
            if gaps is not None:
                return " ".join(filter(None, gaps)) or text
        return text


def _gaps(text: str, literals: Sequence[str]) -> list[str] | None:
    """What stands between the literals where the text begins with the first, ends with the last and has the others in
    order; each is taken where it first occurs, so the time is linear. None where the text does not fit."""
    first, *between, last = literals if len(literals) > 1 else (literals[0], "")
    if not (text.startswith(first) and text.endswith(last) and len(text) >= len(first) + len(last)):
        return None
    if len(literals) == 1:
        return [""] if text == first else None
    place, end = len(first), len(text) - len(last)
    gaps = []
    for literal in between:
        found = text.find(literal, place, end)
        if found < 0:
            return None
        gaps.append(text[place:found].strip())
        place = found + len(literal)
    gaps.append(text[place:end].strip())
    return gaps


def load(path: Path) -> Templates:
    """Raises ConfigError, which names the line."""
    templates = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read templates_file {path}: {type(error).__name__}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            template = json.loads(line)
        except json.JSONDecodeError:
            template = None
        if not isinstance(template, str) or not comparable(template.replace(_GAP, "")):
            raise ConfigError(f"{path} line {number}: expected a JSON string that is more than gaps")
        templates.append(template)
    return Templates.of(templates)
