"""National identity and tax numbers, by their checksums (python-stdnum) and, where these are weak, by a word before.

Pure. What is grouped as the authority writes it needs no word; a bare run of digits does, unless its own checks are
strong (a birth date and a checksum inside).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.de import idnr, stnr
from stdnum.es import dni, nie
from stdnum.fr import nif, nir
from stdnum.in_ import aadhaar, pan
from stdnum.iso7064 import mod_11_2
from stdnum.it import codicefiscale
from stdnum.jp import in_ as my_number

from onlinerlhf.gateway.pii.contact import Span
from onlinerlhf.gateway.pii.cues import OTHER_NUMBER, Budget, Cue, has_before, is_in_row, words
from onlinerlhf.gateway.pii.findings import Kind
from onlinerlhf.gateway.pii.offsets import View
from onlinerlhf.gateway.pii.windows import SHORT, Windows, has_any, longest, matches, with_digits
from onlinerlhf.gateway.pii.windows import not_after as behind

MAX_CHECKS = 200

_LEFT = ("[0-9A-Za-z_]", r"[0-9][.\-/]")
_RIGHT = r"(?![0-9A-Za-z_])(?![.\-/][0-9])"
_SHORT = (Kind.UK_NI_NUMBER, Kind.ES_DNI)
"""These, and Italy's, have letters and fewer digits than `_MIN_DIGITS`."""
_MIN_DIGITS = 9
_FEW = 2
_STRONG_DIGITS = 15
"""A run of so many has checks that are no chance, even in a list of numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """One kind of number in one way to write it."""

    kind: Kind
    pattern: re.Pattern[str]
    is_valid: Callable[[str], bool]
    """Of the text as written."""
    cue: Cue | None = None
    """A word that must stand before it."""
    not_after: re.Pattern[str] | None = None
    """A word that must not."""


def _number(
    kind: Kind,
    body: str,
    is_valid: Callable[[str], bool],
    cue: Cue | None = None,
    *,
    not_after: re.Pattern[str] | None = None,
) -> Number:
    pattern = re.compile(behind(*_LEFT, body=body) + _RIGHT)
    return Number(kind=kind, pattern=pattern, is_valid=is_valid, cue=cue, not_after=not_after)


def _is_ssn(written: str) -> bool:
    """Areas 000 and 666, group 00 and serial 0000 are never given out; 9xx only as ITIN, with groups of its own."""
    digits = re.sub("[^0-9]", "", written)
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    if area in ("000", "666") or group == "00" or serial == "0000":
        return False
    return area < "900" or 50 <= int(group) <= 65 or 70 <= int(group) <= 88 or 90 <= int(group) <= 99


# 123-45-6789 is a subtraction too.
_OPERATOR = re.compile(r"[ ]?[+*/^=](?!=)")
# As many digits; without a word these are far more common.
_CHINESE_MOBILE = re.compile(r"1(?:3[0-9]|4[5-9]|5[0-35-9]|6[2567]|7[0-8]|8[0-9]|9[0-35-9])[0-9]{8}")
_NO_NI_PREFIX = frozenset({"BG", "GB", "NK", "KN", "TN", "NT", "ZZ"})


def _is_ni(written: str) -> bool:
    return written[:2].upper() not in _NO_NI_PREFIX


def _is_resident_id(written: str) -> bool:
    """A province (11 to 82), a birth date, ISO 7064 mod 11-2. Districts come and go, so they are not looked up."""
    digits = _plain(written)
    month, day = int(digits[10:12]), int(digits[12:14])
    is_dated = digits[6:8] in ("18", "19", "20") and 1 <= month <= 12 and 1 <= day <= 31
    return is_dated and "11" <= digits[:2] <= "82" and mod_11_2.is_valid(digits)


def _is_dni(written: str) -> bool:
    return bool(dni.is_valid(_plain(written).zfill(9)))


def _anything(written: str) -> bool:
    return len(set(re.sub("[^0-9]", "", written))) > 1


def _cue(marks: str, *alternatives: str) -> Cue:
    return Cue(pattern=words(*alternatives), marks=tuple(marks.split()))


_SSN_CUE = _cue("ssn social itin tax", "ssn", "social", "itin", "tax(?:payer)? id")
_NI_CUE = _cue("insurance ni", "national insurance", r"ni(?![a-z])", "nino")
_IDNR_CUE = _cue("steuer id tax tin nr", "steuer", r"id-?nr", "idnr", "tax", r"tin(?![a-z])", "identifikationsnummer")
_STNR_CUE = _cue("steuer st tax", "steuernummer", "steuer-?nr", r"st\.?-? ?nr", "stnr", "tax number", "tax no")
_FR_CUE = _cue("fiscal spi imp tax nif", "fiscal", "spi", "imp[ôo]t", "tax", r"nif(?![a-z])")
_NIR_CUE = _cue(
    "curit sécu secu nir vitale social insee", "s[ée]curit[ée]", "s[ée]cu", r"nir(?![a-z])", "vitale", "social", "insee"
)
_DNI_CUE = _cue(
    "dni nif nie documento ident id", "dni", "nif", "nie(?![a-z])", "documento", "identidad", "identity", r"id(?![a-z])"
)
_CN_CUE = _cue("身份证 身分证 证件 resident id", "身份证", "身分证", "证件", "resident", r"id(?![a-z])", "identity")
_CPF_CUE = _cue("cpf", "cpf")
_AADHAAR_CUE = _cue("aadha uid आधार", "aadha+r", "uidai", "आधार", r"uid(?![a-z])")
_SIN_CUE = _cue("sin insurance", r"sin(?![a-z])", "social insurance")
_MY_NUMBER_CUE = _cue("number マイナンバー 個人番号", "my ?number", "マイナンバー", "個人番号")

_LETTER = "[A-HJ-NP-TV-Za-hj-np-tv-z]"
"""Of a DNI or NIE: no I, no O, no U."""
_NI = r"[A-CEGHJ-PR-TW-Za-ceghj-pr-tw-z][A-CEGHJ-NPR-TW-Za-ceghj-npr-tw-z]"
_NI_DIGITS = r"[ \-.]?[0-9]{2}[ \-.]?[0-9]{2}[ \-.]?[0-9]{2}[ \-.]?[A-Da-d]"
# India's for taxpayers has only four digits, so it is looked for everywhere.
_PAN = re.compile(r"[A-Z]{3}[ABCFGHJLPT][A-Z](?<![0-9A-Za-z_].{5})[0-9]{4}[A-Z](?![0-9A-Za-z_])")
NUMBERS = (
    _number(Kind.US_SSN, r"[0-9]{3}([\- ])[0-9]{2}\1[0-9]{4}(?! [0-9])", _is_ssn),
    _number(Kind.US_SSN, r"[0-9]{3}[\-. /]{0,3}[0-9]{2}[\-. /]{0,3}[0-9]{4}", _anything, _SSN_CUE),
    _number(Kind.CN_RESIDENT_ID, r"[1-9][0-9]{5}[ \-]?[12][0-9]{3}[ ]?[0-9]{4}[ \-]?[0-9]{3}[0-9Xx]", _is_resident_id),
    _number(Kind.CN_RESIDENT_ID, r"[1-9][0-9]{5}(?:19|20)[0-9]{9}[0-9Xx]", _anything, _CN_CUE),
    _number(Kind.UK_NI_NUMBER, _NI + _NI_DIGITS, _is_ni),
    # Temporary numbers, and the prefix of examples.
    _number(Kind.UK_NI_NUMBER, r"(?:ZZ|TN|QQ|qq)[ ]?[0-9]{2}[ ]?[0-9]{2}[ ]?[0-9]{2}[ ]?[A-DFMPTa-d]", _anything),
    _number(
        Kind.UK_NI_NUMBER,
        r"[A-Za-z]{2}[ \-]?[0-9]{2}[ \-]?[0-9]{2}[ \-]?[0-9]{2}(?:[ \-]?[A-Da-d])?",
        _anything,
        _NI_CUE,
    ),
    _number(Kind.ES_DNI, rf"[0-9]{{8}}(?:-?{_LETTER}| ?[\-/]? ?[A-HJ-NP-TV-Z])", _is_dni),
    _number(Kind.ES_DNI, rf"[0-9]{{1,2}}[. ][0-9]{{3}}[. ][0-9]{{3}} ?\-? ?{_LETTER}", _is_dni),
    _number(Kind.ES_DNI, r"[0-9]{7,8}[ \-]?[A-Za-z]", _is_dni, _DNI_CUE),
    _number(
        Kind.ES_DNI,
        rf"[XYZxyz][ \-.]?[0-9][. ]?[0-9]{{3}}[. ]?[0-9]{{3}}[ \-]?{_LETTER}",
        lambda text: nie.is_valid(_plain(text)),
    ),
    _number(
        Kind.DE_TAX_ID,
        r"[1-9][0-9]([ \-./])[0-9]{3}\1[0-9]{3}\1[0-9]{3}(?! [0-9])",
        lambda text: idnr.is_valid(_plain(text)),
    ),
    _number(
        Kind.DE_TAX_ID,
        r"[1-9][0-9][ ./\-]?[0-9]{3}[ ./\-]?[0-9]{3}[ ./\-]?[0-9]{3}",
        lambda text: idnr.is_valid(_plain(text)),
        _IDNR_CUE,
    ),
    _number(
        Kind.DE_TAX_ID,
        r"[1-9][0-9]{10}",
        lambda text: idnr.is_valid(text) and _CHINESE_MOBILE.fullmatch(text) is None,
        not_after=OTHER_NUMBER,
    ),
    _number(
        Kind.DE_TAX_ID, r"[0-9]{2,5}[/ ]?[0-9]{3,4}[/ ]?[0-9]{4,5}", lambda text: stnr.is_valid(_plain(text)), _STNR_CUE
    ),
    _number(
        Kind.FR_NIR,
        r"[1-478][ .\-]?[0-9]{2}[ .\-]?[0-9]{2}[ .\-]?(?:[0-9]{2}|2[ABab])"
        r"[ .\-]?[0-9]{3}[ .\-]?[0-9]{3}[ .\-/|]{0,3}[0-9]{2}",
        lambda text: nir.is_valid(_plain(text)),
    ),
    _number(
        Kind.FR_NIR,
        r"[12][ .]?[0-9]{2}[ .]?[0-9]{2}[ .]?(?:[0-9]{2}|2[ABab])[ .]?[0-9]{3}[ .]?[0-9]{3}",
        _anything,
        _NIR_CUE,
    ),
    _number(
        Kind.FR_TAX_NUMBER,
        r"[0-3][0-9][ .][0-9]{2}[ .][0-9]{3}[ .][0-9]{3}[ .][0-9]{3}",
        lambda text: nif.is_valid(_plain(text)),
    ),
    _number(Kind.FR_TAX_NUMBER, r"[0-3](?:[ .]?[0-9]){12}", lambda text: nif.is_valid(_plain(text))),
    _number(Kind.FR_TAX_NUMBER, r"[0-3](?:[ .]?[0-9]){12}", _anything, _FR_CUE),
    _number(Kind.NATIONAL_ID, r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", cpf.is_valid),
    _number(
        Kind.NATIONAL_ID,
        r"[0-9]{3}[. ]?[0-9]{3}[. ]?[0-9]{3}[\- ]?[0-9]{2}",
        lambda text: cpf.is_valid(_plain(text)),
        _CPF_CUE,
    ),
    _number(
        Kind.NATIONAL_ID,
        r"[2-9][0-9]{3}[ \-]?[0-9]{4}[ \-]?[0-9]{4}",
        lambda text: aadhaar.is_valid(_plain(text)),
        _AADHAAR_CUE,
    ),
    _number(
        Kind.NATIONAL_ID,
        r"[A-Za-z]{6}[0-9]{2}[A-Ea-eHhLlMmPpRrSsTt][0-9]{2}[A-Za-z][0-9]{3}[A-Za-z]",
        codicefiscale.is_valid,
    ),
    _number(
        Kind.NATIONAL_ID, r"[0-9]{3}[ \-]?[0-9]{3}[ \-]?[0-9]{3}", lambda text: sin.is_valid(_plain(text)), _SIN_CUE
    ),
    _number(
        Kind.NATIONAL_ID,
        r"[0-9]{4}[ \-]?[0-9]{4}[ \-]?[0-9]{4}",
        lambda text: my_number.is_valid(_plain(text)),
        _MY_NUMBER_CUE,
    ),
    _number(Kind.NATIONAL_ID, r"[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])-[1-8][0-9]{6}", _anything),
)
"""Korea's is the last: a birth date, a hyphen, seven digits; its checksum is no longer given out."""


def national_ids(view: View, windows: Windows, *, may_have_pan: bool = True) -> Iterator[Span]:
    """Every number of the table whose check holds."""
    budget = Budget(MAX_CHECKS)
    if may_have_pan:
        for match in _PAN.finditer(view.text):
            if not budget.spend() or pan.is_valid(match.group()[-10:]):
                yield Kind.NATIONAL_ID, match.end() - 10, match.end()
    if not windows:
        return
    wide = with_digits(view, windows, _MIN_DIGITS)
    # To search two short windows is cheaper than to search the text for a cue's marks.
    is_quick = len(windows) <= _FEW and longest(windows) <= SHORT
    for number in NUMBERS:
        ground = windows if number.kind in _SHORT or number.is_valid is codicefiscale.is_valid else wide
        if ground and (number.cue is None or is_quick or has_any(view.lower, number.cue.marks)):
            for match in matches(number.pattern, view.text, ground):
                if _is_the_number(view, number, match, budget):
                    yield number.kind, match.start(), match.end()


def _is_the_number(view: View, number: Number, match: re.Match[str], budget: Budget) -> bool:
    if number.cue is not None and not has_before(view, match.start(), number.cue.pattern):
        return False
    written = match.group()
    is_weak = number.cue is None and written.isdigit() and len(written) < _STRONG_DIGITS
    if is_weak and is_in_row(view.text, *match.span()):
        return False
    if not budget.spend():
        return True
    if number.cue is None and number.kind is Kind.US_SSN and _OPERATOR.match(view.text, match.end()) is not None:
        return False
    if number.not_after is not None and has_before(view, match.start(), number.not_after, width=24):
        return False
    return number.is_valid(written)


def _plain(written: str) -> str:
    return re.sub("[^0-9A-Za-z]", "", written).upper()
