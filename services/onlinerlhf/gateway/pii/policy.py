"""What becomes of a text in which something was found. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from onlinerlhf.gateway.pii.findings import Finding, Kind


class Policy(StrEnum):
    """One for each class of keys."""

    DROP = "drop"
    """The text is not kept at all."""
    REDACT = "redact"
    """Each finding becomes a placeholder with its kind."""
    TAG = "tag"
    """The text stays; its record names the kinds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """A text after its policy."""

    text: str
    """Empty where it is dropped."""
    kinds: tuple[Kind, ...]
    """Of everything found, each once, in alphabetical order."""
    is_dropped: bool


def apply(text: str, findings: Sequence[Finding], policy: Policy) -> Screened:
    """`findings` as `find` returns them: sorted by start, none overlapping another."""
    kinds = tuple(sorted({found.kind for found in findings}))
    if not findings or policy is Policy.TAG:
        return Screened(text=text, kinds=kinds, is_dropped=False)
    if policy is Policy.DROP:
        return Screened(text="", kinds=kinds, is_dropped=True)
    return Screened(text=_redacted(text, findings), kinds=kinds, is_dropped=False)


def _redacted(text: str, findings: Sequence[Finding]) -> str:
    parts, place = [], 0
    for found in findings:
        parts += [text[place : found.start], found.kind.placeholder]
        place = found.end
    return "".join([*parts, text[place:]])
