"""Birth dates and passport numbers: numbers like any other but for the words before them. Pure."""

import re
from collections.abc import Iterator

from onlinerlhf.gateway.pii.contact import Span
from onlinerlhf.gateway.pii.findings import Kind
from onlinerlhf.gateway.pii.offsets import View
from onlinerlhf.gateway.pii.prefilter import any_of

_MONTH = (
    r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mär|mai|okt|dez|ene|abr|ago|dic|fév|avr|juin|juil|août|déc|"
    r"fev|set|out|enero|janv)[a-zéûçä]{0,10}\.?"
)
_CHINESE_DATE = r"[0-9]{4}[ ]?年[ ]?[0-9]{1,2}[ ]?月[ ]?[0-9]{1,2}[ ]?日"
_DATE = (
    r"(?:[0-9]{1,2}[./\- ][0-9]{1,2}[./\- ](?:[0-9]{4}|[0-9]{2})|[0-9]{4}[./\-][0-9]{1,2}[./\-][0-9]{1,2}|"
    rf"[0-9]{{1,2}}(?:st|nd|rd|th|\.|º)?[ ](?:de |of )?{_MONTH},?[ ](?:de |del )?[0-9]{{4}}|"
    rf"{_MONTH}[ ][0-9]{{1,2}}(?:st|nd|rd|th)?,?[ ][0-9]{{4}}|{_CHINESE_DATE}|"
    r"(?:19|20)[0-9]{6})(?![0-9])"
)
_BIRTH = re.compile(
    r"(?:(?<![a-z])(?:dob|d\.o\.b\.?|(?:date of birth|birth ?date|birthday|geburtsdatum|geburtstag|date de naissance|"
    r"fecha de nacimiento|data de nascimento)|(?:i was|i am|i'm|was i) born(?: on)?|"
    r"(?:ich bin|ich wurde) am|geb\.(?: am)?|"
    r"geboren am|je suis née? le|née? le|nací el|naci el|nacid[oa] el|nasci em|nascid[oa] em)|"
    r"出生日期|出生年月|出生于|我的生日|生日|生年月日|誕生日)"
    rf"[^0-9a-z\n]{{0,6}}(?:(?:is|was|on|ist|am|est|le|es|el|é|em|of|是|为|は)[ :]{{1,2}}|[是为は:])?"
    rf"[^0-9a-z\n]{{0,3}}({_DATE})"
)
_PASSPORT = re.compile(
    r"(?:(?<![a-z])(?:passport|passeport|pasaporte|reisepass|passaporte|passnummer)|护照|旅券|パスポート)"
    r"[^0-9\n]{0,30}?(?<![A-Za-z0-9])((?:[A-Za-z]{1,3}[ ]?)?[0-9]{6,9}|[A-Z0-9]{8,9})(?![A-Za-z0-9])",
    re.IGNORECASE,
)
BIRTH_WORDS = (
    "birth", "dob", "d.o.b", "born", "gebo", "geb.", "geburt", "naissance", "née", "né le", "nac", "nasc", "出生",
    "生日", "生年", "誕生", "ich bin am", "ich wurde am",
)  # fmt: skip
PASSPORT_WORDS = (
    "passport",
    "passeport",
    "pasaporte",
    "reisepass",
    "passaporte",
    "passnummer",
    "护照",
    "旅券",
    "パスポート",
)
_SPEAKS_OF_BIRTH, _SPEAKS_OF_PASSPORTS = any_of(BIRTH_WORDS), any_of(PASSPORT_WORDS)


def birth_dates(view: View) -> Iterator[Span]:
    """Dates that somebody calls a birth date; a birthday of a third person in prose is none."""
    if _SPEAKS_OF_BIRTH.search(view.lower) is not None:
        for match in _BIRTH.finditer(view.lower):
            yield Kind.BIRTH_DATE, match.start(1), match.end(1)


def passports(view: View) -> Iterator[Span]:
    """Numbers right after the word passport, in nine languages' words for it."""
    if _SPEAKS_OF_PASSPORTS.search(view.lower) is not None:
        for match in _PASSPORT.finditer(view.text):
            if sum(character.isdigit() for character in match.group(1)) >= 5:
                yield Kind.PASSPORT, match.start(1), match.end(1)
