"""Street addresses in the usual forms of eight languages. Best effort and pure: many are written in none of them."""

import re
from collections.abc import Iterator

from onlinerlhf.gateway.pii.contact import Span
from onlinerlhf.gateway.pii.findings import Kind
from onlinerlhf.gateway.pii.offsets import View
from onlinerlhf.gateway.pii.prefilter import any_of
from onlinerlhf.gateway.pii.windows import has_any

_WORD = r"[A-Z\u00c0-\u00de][A-Za-z\u00c0-\u024f\u0300-\u036f'’.\-]{1,25}"
_ENGLISH_SURE = (
    r"Street|Avenue|Boulevard|Blvd\.?|Ave\.?|St\.?|Rd\.?|Road|Lane|Ln\.?|Drive|Terrace|Crescent|Parkway|Pkwy\.?|"
    r"Nagar|Marg|Gardens"
)
_ENGLISH_ANY = (
    r"Dr\.?|Court|Ct\.?|Way|Place|Pl\.?|Square|Sq\.?|Close|Circle|Cir\.?|Highway|Hwy\.?|Grove|Row|Mews|Trail|Trl\.?"
)
_UNIT = r"(?:,? (?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|#)\.? ?#?[A-Z0-9\-]{1,6})?"
_PLACE = rf"(?:,? {_WORD}(?: {_WORD}){{0,2}})?"
_CODE = r"(?:,? (?:[A-Z]{2} )?[0-9]{5}(?:-[0-9]{4})?|,? [A-Z]{1,2}[0-9][A-Z0-9]? ?[0-9][A-Z]{2})"
_NUMBER = r"(?<![0-9A-Za-z.,\-/$€£])[0-9]{1,5}[A-Za-z]?(?:-[0-9]{1,4})?"

# A house number comes first: the text is searched for it, and the street is matched from there. A street begins with
# a capital or with one of the French words below.
_AFTER_HOUSE = r"[A-Za-z]?(?:-[0-9]{1,4})?(?: bis| ter)?,? (?=[A-Z\u00c0-\u00de]|(?i:ru|av|bo|pl|al|ch|im|qu|co|ro|sq))"
AFTER_HOUSE = re.compile(_AFTER_HOUSE)
"""What follows the digits of a house number."""
_HOUSE = re.compile(r"[0-9]{1,5}" + _AFTER_HOUSE)
_FROM_HOUSE = (
    re.compile(
        rf"{_NUMBER},? (?:[NSEW]\.? |North |South |East |West )?(?:{_WORD} ){{1,3}}(?:{_ENGLISH_SURE})(?![A-Za-z])"
        rf"{_UNIT}(?:{_PLACE}{_CODE})?"
    ),
    re.compile(
        rf"{_NUMBER},? (?:[NSEW]\.? )?(?:{_WORD} ){{1,3}}(?:{_ENGLISH_ANY})(?![A-Za-z])"
        rf"(?:{_UNIT}(?:{_PLACE}{_CODE})|(?=,|\.|\n|$))"
    ),
    re.compile(
        rf"{_NUMBER}(?: bis| ter)?,? (?i:rue|avenue|boulevard|place|allée|chemin|impasse|quai|cours|route|square) "
        rf"(?:(?:de la|de l'|du|des|de|d'|la|le|les|l') ?)?{_WORD}(?:[ \-]{_WORD}){{0,3}}(?:,? [0-9]{{5}} {_WORD})?"
    ),
)
# The number comes last.
_BEFORE_NUMBER = re.compile(
    r"[A-Z\u00c0-\u00de][A-Za-z\u00c0-\u024f\u0300-\u036f'’.\-]{1,25},? (?:n[ºo°]\.? ?)?\Z|[xXhH] \Z"
)
_LAST_OF_BOX = ("x", "h")
_WIDTH = 48
"""Of what that looks at."""
_GERMAN_ENDINGS = (
    *("straße", "strasse", "str.", "weg", "platz", "allee", "gasse", "ring", "damm", "ufer"),
    *("Straße", "Strasse", "Str.", "Weg", "Platz", "Allee"),
)
_POST_BOX = ("p.o", "po box", "postfach")
_GERMAN = ("straße", "strasse", "str.", "weg", "platz", "allee", "gasse", "ring ", "damm", "ufer")
_SPANISH = (
    "calle", "c/", "avenida", "avda", "plaza", "paseo", "camino", "carrer", "rua ", "av.", "travessa", "alameda",
    "praça", "estrada",
)  # fmt: skip
"""And Portuguese."""
_HAS_FORM = any_of((*_POST_BOX, *_GERMAN, *_SPANISH))
_HAN = ("号", "號", "都", "県", "府", "道")
# The street comes first: only where one of the words is in the text.
_FORMS = (
    (_POST_BOX, re.compile(r"(?:P\.?O\.? Box|Postfach) [0-9]{1,6}", re.IGNORECASE)),
    (
        _GERMAN,
        re.compile(
            r"(?<![A-Za-z])[A-Z\u00c0-\u00de][A-Za-z\u00c0-\u024f\u0300-\u036f\-]{1,30}"
            r"(?:straße|strasse|str\.|weg|platz|allee|gasse|ring|damm|ufer| Straße| Strasse| Str\.| Weg| Platz| Allee)"
            r" ?[0-9]{1,4} ?[a-z]?(?![0-9A-Za-z%])(?:,? [0-9]{5} [A-Z\u00c0-\u00de][a-z\u00c0-\u024f]{2,25})?"
        ),
    ),
    (
        _SPANISH,
        re.compile(
            r"(?<![A-Za-z])(?i:calle|c/|avenida|avda\.?|plaza|paseo|camino|carrer|rua|av\.|travessa|alameda|praça|estrada)"
            rf" ?(?:(?:de la|de los|del|de|da|do|dos|das) )?{_WORD}(?: (?:(?:de|da|do|la|del) )?{_WORD}){{0,3}}"
            r",? (?:n[ºo°]\.? ?)?[0-9]{1,5}(?![0-9%])"
        ),
    ),
    (
        ("号", "號"),
        re.compile(
            r"[\u4e00-\u9fff]{2,20}(?:路|街|道|巷|弄|大道|胡同)[0-9]{1,5}(?:弄[0-9]{1,4})?[号號]"
            r"(?:[0-9A-Za-z\u4e00-\u9fff\-]{0,12}[室楼座层])?"
        ),
    ),
    (
        ("都", "県", "府", "道"),
        re.compile(
            r"[\u4e00-\u9fff]{2,3}[都道府県][\u3040-\u30ff\u4e00-\u9fff]{1,12}[市区町村郡][\u3040-\u30ff\u4e00-\u9fff]{0,12}"
            r"[0-9]{1,3}(?:丁目|-)[0-9]{1,4}(?:番地?|-)?[0-9]{0,4}号?"
        ),
    ),
)  # fmt: skip


def may_end_street(text: str, start: int) -> bool:
    """Whether a number at `start` may be the last part of a street and number, or of a PO box."""
    before = text[start - 1 : start]
    if before == " ":
        first, end = max(0, start - _WIDTH), start - 1
        word = text[max(first, text.rfind(" ", first, end) + 1) : end]
        # A street has a capital, but for "n°" and for the box of a post office.
        if word == word.lower() and word.isascii() and word[:1] != "n" and word[-1:] not in _LAST_OF_BOX:
            return False
    elif before.isalpha() or before == "°" or (before == "." and not text[start - 2 : start - 1].isdigit()):
        end = start
    else:
        return False
    return (
        text.endswith(_GERMAN_ENDINGS, 0, end) or _BEFORE_NUMBER.search(text, max(0, start - _WIDTH), start) is not None
    )


def has_han_street(text: str) -> bool:
    """Whether a Chinese or Japanese address may be there."""
    return not text.isascii() and has_any(text, _HAN)


def street_addresses(view: View, *, digits_first: bool = True, digits_last: bool = True) -> Iterator[Span]:
    """A street with its number."""
    for house in _HOUSE.finditer(view.text) if digits_first else ():
        for pattern in _FROM_HOUSE:
            match = pattern.match(view.text, house.start())
            if match is not None:
                yield Kind.STREET_ADDRESS, match.start(), match.end()
    if not digits_last or (_HAS_FORM.search(view.lower) is None and not has_han_street(view.text)):
        return
    for words, pattern in _FORMS:
        if has_any(view.lower, words):
            for match in pattern.finditer(view.text):
                yield Kind.STREET_ADDRESS, match.start(), match.end()
