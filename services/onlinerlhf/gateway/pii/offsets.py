"""Text as a reader sees it, with the way back to the original's offsets. Pure.

Zero-width characters, soft hyphens, bidi marks, full-width digits and no-break spaces hide an address from a pattern
and not from a reader, so every pattern runs on a view: each character by itself folded to NFKC, invisible ones dropped,
any space a plain space, any dash a hyphen, any decimal digit an ASCII digit.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from onlinerlhf.gateway.pii.findings import Finding, Kind

# Shown as nothing, though not of category Cf: joiner, variation selectors, Hangul fillers, Braille blank, key cap.
_INVISIBLE = frozenset(
    "\u034f\u115f\u1160\u3164\uffa0\u2800\u20e3" + "".join(chr(code) for code in range(0xFE00, 0xFE10))
)
_LONGEST_FOLD = 4
"""Some ligatures stand for whole sentences; unfolded they cannot blow a text up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A text normalised character by character."""

    text: str
    lower: str
    """As long as `text`."""
    sources: Sequence[int] | None
    """For each character of `text` its place in the original; None where they are the same."""

    def original(self, kind: Kind, start: int, end: int) -> Finding:
        """A finding in the original for `text[start:end]`, which is not empty."""
        if self.sources is None:
            return Finding(kind=kind, start=start, end=end)
        return Finding(kind=kind, start=self.sources[start], end=self.sources[end - 1] + 1)


def view(text: str) -> View:
    """Linear in the text; nearly free where it is ASCII."""
    if text.isascii():
        return View(text=text, lower=text.lower(), sources=None)
    folds = {character: fold(character) for character in set(text)}
    changed = {character: folded for character, folded in folds.items() if folded != character}
    if not changed:
        return View(text=text, lower=text.lower(), sources=None)
    if all(len(folded) == 1 for folded in changed.values()):
        text = text.translate({ord(character): folded for character, folded in changed.items()})
        return View(text=text, lower=text.lower(), sources=None)
    parts = [folds[character] for character in text]
    folded_text = "".join(parts)
    sources = [place for place, part in enumerate(parts) for _ in part]
    return View(text=folded_text, lower=folded_text.lower(), sources=sources)


@lru_cache(maxsize=65536)
def fold(character: str) -> str:
    """What a reader takes a character for: one or a few characters, or none."""
    category = unicodedata.category(character)
    if category == "Cf" or character in _INVISIBLE:
        return ""
    if category == "Zs":
        return " "
    if category == "Pd" or character == "\u2212":
        return "-"
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if character == "\u0130":
        # The one letter whose lower case is two characters.
        return "I"
    folded = unicodedata.normalize("NFKC", character)
    if len(folded) > _LONGEST_FOLD:
        return character
    return "".join(_plain(part) for part in folded)


def _plain(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    return " " if category == "Zs" else "-" if category == "Pd" else character
