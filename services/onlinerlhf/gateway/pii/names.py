"""Names, where the words around them say so: "my name is", "Dear Mr", "Sincerely,". Best effort and pure.

Without a model nothing finds a name in running text, and a list of names would flag every famous one. Only the
writer's own name and the addressee's are looked for.
"""

import re
from collections.abc import Iterator

from onlinerlhf.gateway.pii.contact import Span
from onlinerlhf.gateway.pii.findings import Kind
from onlinerlhf.gateway.pii.offsets import View
from onlinerlhf.gateway.pii.prefilter import any_of

_PART = r"[A-Z\u00c0-\u00de\u0410-\u042f][A-Za-z\u00c0-\u024f\u0300-\u036f\u0400-\u04ff'’\-]{1,25}"
_NAME = rf"({_PART}(?: (?:[A-Z]\.|van|von|de|da|dos|del|la|bin|al)(?= ))?(?: {_PART}){{0,2}})"
_FULL = rf"({_PART}(?: (?:[A-Z]\.|van|von|de|da|dos|del|la|bin|al)(?= ))?(?: {_PART}){{1,3}})"
_HAN = r"([\u4e00-\u9fff]{2,3})(?=[，。、,.\s!！]|$|今年|来自|是|，)"
_TITLE = r"(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Herr|Herrn|Frau|Sr|Sra|Señor|Señora|M|Mme|Monsieur|Madame)\.?"
_NO_NAMES = (
    "Sir Madam Hiring Customer Team All Diary Friends Colleague Santa Editor God Not The User Valued Support "
    "Recruiter Committee Professor Doctor"
)
_STOP = frozenset(_NO_NAMES.split())

_CUES = (
    ("name is", re.compile(rf"(?i:my (?:full |first |last )?name is|my name's) {_NAME}")),
    ("i am called", re.compile(rf"(?i:i am called) {_NAME}")),
    ("m'appelle", re.compile(rf"(?i:je m'appelle) {_NAME}")),
    ("me llamo", re.compile(rf"(?i:me llamo) {_NAME}")),
    ("mi nombre es", re.compile(rf"(?i:mi nombre es) {_NAME}")),
    ("ich heiße", re.compile(rf"(?i:ich heiße) {_NAME}")),
    ("mein name ist", re.compile(rf"(?i:mein name ist) {_NAME}")),
    ("meu nome é", re.compile(rf"(?i:meu nome é) {_NAME}")),
    ("me chamo", re.compile(rf"(?i:me chamo) {_NAME}")),
    ("我叫", re.compile(rf"我叫{_HAN}")),
    ("我的名字是", re.compile(rf"我的名字是{_HAN}")),
    ("name:", re.compile(rf"(?i:(?:full |patient |customer |contact |applicant |employee )name:)[ ]?{_FULL}")),
    ("dear ", re.compile(rf"Dear {_TITLE} {_NAME}")),
    ("dear ", re.compile(rf"Dear {_NAME},")),
    ("geehrte", re.compile(rf"(?i:sehr geehrter?) (?:Herr|Frau)n? (?:Dr\. |Prof\. )?{_NAME}")),
    ("cher", re.compile(rf"Ch(?:er|ère) {_TITLE} {_NAME}")),
    ("estimad", re.compile(rf"Estimad[oa] {_TITLE} {_NAME}")),
    ("sincerely", re.compile(rf"(?i:sincerely(?: yours)?|yours sincerely),?\s{{1,3}}{_NAME}\s{{0,3}}(?:\n|$)")),
    ("regards", re.compile(rf"(?i:(?:best|kind|warm)? ?regards),?\s{{1,3}}{_NAME}\s{{0,3}}(?:\n|$)")),
    ("faithfully", re.compile(rf"(?i:yours faithfully),?\s{{1,3}}{_NAME}\s{{0,3}}(?:\n|$)")),
    ("grüße", re.compile(rf"(?i:grüßen?),?\s{{1,3}}{_NAME}\s{{0,3}}(?:\n|$)")),
    ("cordialement", re.compile(rf"(?i:cordialement),?\s{{1,3}}{_NAME}\s{{0,3}}(?:\n|$)")),
    ("atentamente", re.compile(rf"(?i:atentamente),?\s{{1,3}}{_NAME}\s{{0,3}}(?:\n|$)")),
)
# A teacher is no cher.
WORDS = tuple(cue for cue, _ in _CUES if cue != "cher")
PATTERN = rf"ch(?:er|ère) {_TITLE.lower()} "
_HAS_ANY = any_of(WORDS, PATTERN)


def names(view: View) -> Iterator[Span]:
    """Names that are introduced as such."""
    if _HAS_ANY.search(view.lower) is None:
        return
    for cue, pattern in _CUES:
        if cue in view.lower:
            for match in pattern.finditer(view.text):
                if match.group(1).split()[0] not in _STOP:
                    yield Kind.PERSON_NAME, match.start(1), match.end(1)
