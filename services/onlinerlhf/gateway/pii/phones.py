"""Telephone numbers, international and national. Pure and linear.

A shape is found first; what a shape leaves open is decided by `phonenumbers`, by the word before the number
("call", "order no."), or both. Only long numbers are looked at.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import phonenumbers
from stdnum import isbn

from onlinerlhf.gateway.pii.contact import Span
from onlinerlhf.gateway.pii.cues import OTHER_NUMBER, Budget, is_in_row, last_before
from onlinerlhf.gateway.pii.findings import Kind
from onlinerlhf.gateway.pii.offsets import View
from onlinerlhf.gateway.pii.phone_cues import (
    CUE,
    CUE_AFTER,
    DATE,
    THOUSANDS,
    UNIT,
    has_header,
    is_close,
    is_code,
    is_field,
    is_operand,
    is_postal_code,
    is_term,
)
from onlinerlhf.gateway.pii.windows import Windows, matches, not_after, with_digits

MAX_CHECKS = 100
"""Of `phonenumbers` and of words, a text."""
MIN_DIGITS = 9
"""Of a national number that no word introduces."""
MAX_DIGITS = 13
_DIGITS = frozenset("0123456789")
_COUNTRIES = ("US", "GB", "DE_MOBILE", "FR", "ES", "CN", "JP", "IN", "BR")

# A letter before is decided on later: "tel4155552671" is a number, "a4155552671" is not. Each look-behind costs.
_LEFT = ("[0-9_+]", r"[0-9][.\-/:]")
_GLUED = re.compile(r"(?:tel|phone|ph|fax|mob|mobile|cell|call|whatsapp|wa|wechat)\Z")
_RIGHT = r"(?:[ ,;]{0,3}(?i:ext\.?|extension|x|durchwahl|poste|ramal|anexo|内线|内線|分机)[ .:]{0,2}[0-9]{1,6})?"
_RIGHT += r"(?![0-9A-Za-z_])(?![.\-/:][0-9])(?!-[A-Z]{1,3}(?![A-Za-z]))"
_ALONE = r"(?! [0-9])"
"""For groups parted by spaces: no further group follows."""
_NOT_AFTER = r"(?<![0-9] )"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a country writes a number without its country code."""

    pattern: re.Pattern[str]
    regions: tuple[str, ...]
    needs_cue: bool = False
    """A bare run of digits is a number of anything, so a word must say that it is a telephone."""
    is_certain: bool = False
    """The grouping alone says enough: made-up numbers of no real exchange count too."""
    is_short: bool = False
    """It may have fewer than `MIN_DIGITS`."""


def _shape(
    body: str, *regions: str, needs_cue: bool = False, is_certain: bool = False, is_short: bool = False
) -> Shape:
    # Groups parted by spaces must be the first of their row.
    lefts = (*_LEFT, "[0-9] ") if body.startswith(_NOT_AFTER) else _LEFT
    pattern = re.compile(not_after(*lefts, body=body.removeprefix(_NOT_AFTER)) + _RIGHT)
    return Shape(pattern=pattern, regions=regions, needs_cue=needs_cue, is_certain=is_certain, is_short=is_short)


_INTERNATIONAL = re.compile(
    r"(?<![0-9A-Za-z_+)\]])(?<![0-9][.])(?:\(?\+|%2[Bb]|(?:00|011)(?=[ .\-(]?[1-9]))[ ]?\(?[1-9][0-9]{0,3}\)?"
    r"(?:[ ./()\-]{0,3}[0-9]){5,13}" + _RIGHT
)

_NO_BYTES = r"(?! (?:[0-9]|(?!(?:ce|de)(?![a-z]))[A-Fa-f]{2}(?![0-9A-Za-z])))(?!-[0-9A-Fa-f]{2}(?![0-9A-Za-z]))"

NATIONAL = (
    # (415) 555-2671, 1-415-555-2671
    _shape(r"(?:1[ .\-]{0,2})?\([2-9][0-9]{2}\)[ .\-]{0,3}[0-9]{3}[ .\-]{1,2}[0-9]{4}", "US", is_certain=True),
    _shape(r"(?:(?:001|1)[.\-])?[2-9][0-9]{2}([.\-])[2-9][0-9]{2}\1[0-9]{4}", "US", is_certain=True),
    _shape(r"(?:1 )?" + _NOT_AFTER + r"[2-9][0-9]{2} [2-9][0-9]{2}[ \-][0-9]{4}" + _ALONE, "US"),
    _shape(r"(?:1[ .\-]?)?[2-9][0-9]{2}/[2-9][0-9]{2}[\-/.][0-9]{4}", "US"),
    _shape(r"(?:1[ .\-]?)?[1-9][0-9]{2}[ .\-]?[0-9]{3}[ .\-]?[0-9]{4}", needs_cue=True),
    _shape(r"[2-9][0-9]{2}[\-. ][0-9]{4}", needs_cue=True, is_short=True),
    # 01 23 45 67 89
    _shape(_NOT_AFTER + r"0[67](?:([ .\-/])[0-9]{2})(?:\1[0-9]{2}){3}" + _NO_BYTES, is_certain=True),
    _shape(_NOT_AFTER + r"0[1-9](?:([ .\-/])[0-9]{2})(?:\1[0-9]{2}){3}" + _NO_BYTES, "FR"),
    _shape(r"0[67][0-9]{8}", is_certain=True),
    _shape(r"0[1-589][0-9]{8}", "FR"),
    # 07700 900123
    _shape(_NOT_AFTER + r"07[0-9]{3}[ \-]?[0-9]{3}[ \-]?[0-9]{3}" + _ALONE, is_certain=True),
    # 03-1234-5678, 090-1234-5678, 0755-1234567
    _shape(
        r"0(?:[1-9]-[0-9]{4}-[0-9]{4}|[1-9][0-9]-[0-9]{3,4}-[0-9]{4}|[1-9][0-9]{2}-[0-9]{2,3}-[0-9]{3,4}"
        r"|[1-9][0-9]{1,2}-[0-9]{7,8})",
        is_certain=True,
    ),
    # 030 12345678, 0151-2345 6789, 020 7946 0958, (0755) 1234567, 0 30 / 123 45 67
    _shape(
        _NOT_AFTER + r"\(?0[ ]?[1-9][0-9]{1,4}\)?[ ./\-]{1,3}[0-9]{2,8}(?:[ .\-/][0-9]{1,8}){0,4}" + _ALONE,
        *("GB", "DE", "CN", "IN", "JP", "BR", "IT"),
        is_short=True,
    ),
    _shape(r"\(0[1-9][0-9]{1,4}\)[0-9]{4,8}", "GB", "DE", "CN", "IN", "JP", is_short=True),
    _shape(r"0(?:1[5-7][0-9]{9}|[1-9][0-9]{9})", "DE_MOBILE", "GB", "JP", "IN"),
    # 03-1234-5678
    _shape(r"\(?0[1-9]\)?[ \-]?[0-9]{4}-[0-9]{4}", "JP", "BR"),
    _shape(r"0[1-9][0-9]{0,3}\([0-9]{2,4}\)[0-9]{4}", "JP", is_short=True),
    # 138 1234 5678
    _shape(r"(?:86[ \-]?)?1[3-9][0-9]([ \-]?)[0-9]{4}\1[0-9]{4}", "CN"),
    _shape(r"400[ \-][0-9]{3}[ \-][0-9]{4}", "CN"),
    # 612 345 678, 91 123 45 67, 612 34 56 78
    _shape(_NOT_AFTER + r"[6-9][0-9]{2}([ .\-])[0-9]{3}\1[0-9]{3}" + _ALONE, "ES"),
    _shape(_NOT_AFTER + r"[89][0-9]([ .\-])[0-9]{3}\1[0-9]{2}\1[0-9]{2}" + _ALONE, "ES"),
    _shape(_NOT_AFTER + r"[6-9][0-9]{2}([ .\-])[0-9]{2}\1[0-9]{2}\1[0-9]{2}" + _ALONE, "ES"),
    # 98765 43210
    _shape(_NOT_AFTER + r"(?:0|91[ \-])?[6-9][0-9]{4}[ \-][0-9]{5}" + _ALONE, "IN"),
    # (11) 91234-5678
    _shape(r"(?:55 )?\(0?[1-9]{2}\)[ .\-]?9?[ ]?[0-9]{4}[ .\-]?[0-9]{4}", "BR", is_certain=True),
    _shape(_NOT_AFTER + r"(?:55 )?[1-9]{2}[ .\-]9?[0-9]{4}[.\-][0-9]{4}", "BR"),
    _shape(_NOT_AFTER + r"[1-9]{2} 9[ ]?[0-9]{4} [0-9]{4}" + _ALONE, "BR"),
    # Anything long enough after "call me at".
    _shape(r"[0-9(](?:[ ./()\-]{0,2}[0-9]){6,13}", needs_cue=True, is_short=True),
)


def phones(view: View, windows: Windows) -> Iterator[Span]:
    """Numbers that one could dial."""
    budget = Budget(MAX_CHECKS)
    for match in matches(_INTERNATIONAL, view.text, windows):
        if match.group()[:2] == "+ " and is_term(view.text, *match.span()):
            continue
        if _is_international(match.group(), budget):
            yield Kind.PHONE, match.start(), match.end()
    wide = with_digits(view, windows, MIN_DIGITS)
    for shape in NATIONAL:
        for match in matches(shape.pattern, view.text, windows if shape.is_short else wide):
            if _is_national(view, shape, match, budget):
                is_open = match.group()[0] == "(" and ")" not in match.group()
                yield Kind.PHONE, match.start() + is_open, match.end()


def _is_international(written: str, budget: Budget) -> bool:
    digits = re.sub(r"\(0\)|[^0-9]", "", re.split(r"(?i)e?x|durch|poste|ramal|anexo|内|分", written, maxsplit=1)[0])
    has_plus = "+" in written or written[0] == "%"
    digits = digits[1:] if written[0] == "%" else digits
    if len(set(digits)) < 3:
        return False
    if not budget.spend():
        return True
    if not has_plus:
        digits = digits.removeprefix("011") if digits.startswith("011") else digits.removeprefix("00")
    try:
        number = phonenumbers.parse(f"+{digits}")
    except phonenumbers.NumberParseException:
        return False
    # Numbers kept for films and examples are possible but not valid; a plus says enough for these.
    return phonenumbers.is_possible_number(number) if has_plus else phonenumbers.is_valid_number(number)


def _is_national(view: View, shape: Shape, match: re.Match[str], budget: Budget) -> bool:
    written = match.group()
    if len({*written} & _DIGITS) < 3 or DATE.match(written) is not None or _is_inside_a_word(view, match):
        return False
    if not budget.spend():
        return not shape.needs_cue
    is_bare = written.isdigit()
    before = view.text[max(0, match.start() - 32) : match.start()]
    if is_bare and is_in_row(view.text, *match.span()) and not has_header(view):
        return False
    if (is_bare and is_operand(before)) or is_postal_code(before, written):
        return False
    cue, other = (
        last_before(view, match.start(), CUE),
        last_before(view, match.start(), OTHER_NUMBER, width=12 if shape.is_certain else 24),
    )
    is_amount = UNIT.match(view.lower, match.end()) is not None or THOUSANDS.fullmatch(written) is not None
    if shape.needs_cue:
        return not is_amount and _is_meant(view, match, cue=cue, other=other)
    if cue > other and not (is_amount and not is_close(view, cue, match.start())):
        return True
    if other >= 0 or is_amount or is_code(before, is_bare=is_bare):
        return False
    return shape.is_certain or _is_likely(written, shape.regions)


def _is_meant(view: View, match: re.Match[str], *, cue: int, other: int) -> bool:
    """Whether the words around say that these digits, which may be of anything, are dialled."""
    if other < 0 and CUE_AFTER.match(view.lower, match.end()) is not None:
        return _count(match.group()) >= MIN_DIGITS
    if is_field(view.text, match.start()) and has_header(view) and _is_likely(match.group(), _COUNTRIES):
        return True
    # A word farther away speaks of an unbroken number only, and of one that somebody could have.
    written = match.group()
    return cue > other and (
        is_close(view, cue, match.start()) or (written.isdigit() and _is_likely(written, _COUNTRIES))
    )


def _is_likely(written: str, regions: tuple[str, ...]) -> bool:
    if not MIN_DIGITS <= _count(written) <= MAX_DIGITS:
        return False
    return any(_is_valid(written, region) for region in regions)


def _count(written: str) -> int:
    return sum(character.isdigit() for character in written)


def _is_inside_a_word(view: View, match: re.Match[str]) -> bool:
    before = view.lower[max(0, match.start() - 8) : match.start()]
    return before[-1:].isascii() and before[-1:].isalpha() and _GLUED.search(before) is None


def _is_valid(written: str, region: str) -> bool:
    if region == "DE_MOBILE":
        # A German number of a fixed line may have any length, so without a separator only mobile ones are believed.
        return written.startswith("01") and _is_valid(written, "DE")
    if region == "FR" and written.isdigit() and (isbn.is_valid(written) or written in "0123456789"):
        return False
    try:
        number = phonenumbers.parse(written, region)
    except phonenumbers.NumberParseException:
        return False
    return phonenumbers.is_valid_number(number)
