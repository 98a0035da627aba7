"""E-mail addresses, plain, escaped and spelt out. Pure and linear: every quantifier is bounded."""

import re
from collections.abc import Iterator

from onlinerlhf.gateway.pii.findings import Kind
from onlinerlhf.gateway.pii.offsets import View
from onlinerlhf.gateway.pii.prefilter import any_of

Span = tuple[Kind, int, int]
"""Offsets in the view."""

# Latin with accents, Greek, Cyrillic and combining marks; not Chinese, which is glued to addresses without a space.
_LETTER = "A-Za-z0-9\u00c0-\u024f\u0300-\u036f\u0370-\u052f"
_LOCAL = rf"[{_LETTER}.'%+_-]"
_LABEL = rf"[{_LETTER}](?:[{_LETTER}-]{{0,62}})"
_TLD = r"(?:[A-Za-z\u0400-\u04ff]{2,24}|xn--[A-Za-z0-9-]{2,24})"
_AT = r"(?:@|%40|&#64;|&commat;|\\u0040)"

_DOMAIN_AFTER_AT = re.compile(rf"{_AT}(?=[{_LETTER}])((?:{_LABEL}\.){{1,8}})({_TLD})(?![{_LETTER}_]|-[{_LETTER}])")
_LOCAL_BACKWARDS = re.compile(rf"(?:_\\|{_LOCAL}){{1,64}}")
"""With the backslash that Markdown wants before an underscore."""
_QUOTED_BACKWARDS = re.compile(r"\"[^\"\n]{1,62}\"")
# Endings of files, not of hosts: icon@2x.png.
_ENDINGS = "png jpg jpeg gif svg webp js mjs css jsx tsx json yaml yml xml txt html htm"
_FILE_ENDINGS = frozenset(_ENDINGS.split())

_LOGIN = re.compile(
    r"(?:(?<![A-Za-z0-9])(?:ssh|scp|sftp|mosh|rsync|ssh-copy-id)(?: -[A-Za-z]{1,4}(?: [^\s@-][^\s@]{0,30})?){0,3} |"
    r"(?:ssh|sftp|ftp|git|svn|rsync|smb|vnc|rdp|[a-z]{2,10}sql|postgres|redis|amqp|mongodb(?:\+srv)?)://|://[^\s/@:]{1,40}:)\Z"
)

_AT_WORD = r"(?:at|arroba|arobase|ät|chiocciola|klammeraffe)"
_DOT_WORD = r"(?:dot|punto|point|punkt|ponto)"
_OPEN, _CLOSE = r"[\[({<]", r"[\])}>]"
_AT_SPELT = rf"[ ]{{0,2}}{_OPEN}[ ]?(?:{_AT_WORD}|@)[ ]?{_CLOSE}[ ]{{0,2}}"
_AT_SPACED = rf"(?:[ ]{{0,2}}@[ ]{{0,2}}|[ ]{{1,2}}{_AT_WORD}[ ]{{1,2}})"
_DOT_SPELT = rf"(?:[ ]{{0,2}}{_OPEN}[ ]?(?:{_DOT_WORD}|\.)[ ]?{_CLOSE}[ ]{{0,2}}|[ ]{{1,2}}{_DOT_WORD}[ ]{{1,2}})"
_WORD = r"[a-z0-9](?:[a-z0-9_+-]{0,62})"
_END = r"(?![a-z0-9])"
_START = r"(?<![a-z0-9._+-])"
_PARTS = rf"{_WORD}(?:(?:\.|{_DOT_SPELT}){_WORD}){{0,4}}"
_KNOWN_TLD = (
    r"(?:com|org|net|edu|gov|io|co|info|biz|de|fr|es|uk|br|in|jp|cn|eu|us|ca|it|nl|ch|at|au|dev|app|ai|me|example)"
)
_PLACE = re.compile(
    r"(?:us|me|him|her|them|it|up|out|in|online|here|there|today|now|shop|store|look|buy|bought|order|ordered|sale|met|meet|"
    r"work|works|worked|working|job|jobs|available|found|find|see|seen|visit|read|more|start|started|hosted|live|stay|"
    r"signed|sign|register|listed|sold|posted|page|site|website|details|arrive|arrived|stop|point|located|is|are|was|were|"
    r"be|been|[a-z]{3,12}ing|(?:more|further) info(?:rmation)?) at |[a-z]+ at (?:this|that|the|a|an|some|any|every) "
)
_MAIL_CUE = re.compile(r"mail|address|contact|write to|reach")
_KNOWN_ENDING = re.compile(_KNOWN_TLD)
_AT_MARKS = (
    *("(at", "[at", "{at", "<at", "(@", "[@", "{@", "( at", "[ at", "@ ", " @"),
    *("arroba", "arobase", "(ät", "[ät", "chiocciola"),
)
_DOT_MARKS = (
    *(" dot ", "(dot", "[dot", "{dot", "( dot", "[ dot", "_dot_", "-dot-", "[.", "(."),
    *(" punto ", " punkt ", " point ", " ponto ", "(punkt", "[punkt"),
)
_HAS_AT, _HAS_DOT = any_of(_AT_MARKS), any_of(_DOT_MARKS)
SPELT_WORDS = (" dot ", " punto ", " point ", " punkt ", " ponto ", "_dot_", "-dot-", "_dot-", "-dot_")
"""An address that is spelt out has one of these, or `has_spelt_sign`."""
_SIGN = re.compile(rf"{_OPEN}[ ]?(?:{_AT_WORD}|@|{_DOT_WORD}|\.)[ ]?{_CLOSE}")
_SPELT = (
    # name (at) example.com, name [at] example (dot) com
    re.compile(rf"{_START}{_PARTS}{_AT_SPELT}{_PARTS}(?:\.|{_DOT_SPELT})[a-z]{{2,24}}{_END}"),
    # name @ example.com
    re.compile(rf"{_START}{_PARTS}[ ]{{1,2}}@[ ]{{0,2}}{_PARTS}\.{_KNOWN_TLD}{_END}"),
    # name@example dot com, name at example dot com
    re.compile(rf"{_START}{_PARTS}{_AT_SPACED}{_PARTS}{_DOT_SPELT}{_KNOWN_TLD}{_END}"),
    # name_at_example_dot_com, name-at-example-dot-com
    re.compile(
        r"(?<![a-z0-9])[a-z0-9]{1,30}(?:[._-][a-z0-9]{1,30}){0,3}[_-]at[_-][a-z0-9]{1,40}"
        r"[_-]dot[_-](?:com|org|net|edu|io|de|fr|es|co)(?![a-z0-9])"
    ),
)


def has_spelt_sign(lower: str) -> bool:
    """Whether an address may be spelt out with brackets or a lonely at sign. Single characters cost next to nothing."""
    if "@" in lower and " @" in lower:
        return True
    has_bracket = "(" in lower or "[" in lower or "<" in lower or "{" in lower
    return has_bracket and _SIGN.search(lower) is not None


def plain_emails(view: View) -> Iterator[Span]:
    """Every address that a reader could write to; example.com counts as well."""
    text = view.text
    # Single characters cost next to nothing.
    if not (
        "@" in text
        or ("%" in text and "%40" in text)
        or ("&" in text and ("&#64;" in text or "&commat;" in text))
        or ("\\" in text and "\\u0040" in text)
    ):
        return
    for match in _DOMAIN_AFTER_AT.finditer(text):
        before = text[max(0, match.start() - 64) : match.start()][::-1]
        local = _LOCAL_BACKWARDS.match(before) or _QUOTED_BACKWARDS.match(before)
        if local is None:
            continue
        name = local.group()[::-1].lstrip(".'%-")
        if name and not _is_something_else(text, name, match):
            yield Kind.EMAIL, match.start() - len(name), match.end()


def _is_something_else(text: str, name: str, match: re.Match[str]) -> bool:
    after = text[match.end() : match.end() + 1]
    if after == "(" or match.group(2).lower() in _FILE_ENDINGS:
        return True
    domain = match.group(1)
    if len(name) == 1 and len(domain) == 2 and _KNOWN_ENDING.fullmatch(match.group(2).lower()) is None:
        # A product of matrices: A@B.shape.
        return True
    # The address of a repository: git@host:owner/name.
    if name == "git" and after in (":", "/"):
        return True
    # A login to a machine: ssh deploy@host, deploy@host:/srv, sftp://deploy@host, ://user:password@host.
    start = match.start() - len(name)
    return text.startswith((":/", ":~"), match.end()) or _LOGIN.search(text, max(0, start - 64), start) is not None


def spelt_emails(view: View) -> Iterator[Span]:
    """Addresses in words, where `SPELT_WORDS` or a sign is in the text."""
    lower = view.lower
    # Whatever spells an address out has one of these.
    has_at = _HAS_AT.search(lower) is not None
    if not has_at and not (_HAS_DOT.search(lower) is not None and ("@" in lower or "at" in lower or "ät" in lower)):
        return
    for pattern in _SPELT:
        for match in pattern.finditer(lower):
            if not _is_place(lower, match):
                yield Kind.EMAIL, match.start(), match.end()


def _is_place(lower: str, match: re.Match[str]) -> bool:
    """Whether "at" is the plain word: shop at example dot com. Nobody is called shop, unless mail is spoken of."""
    if match.group().startswith("info") and lower.endswith(("more ", "further "), 0, match.start()):
        return True
    sentence = _PLACE.match(lower, match.start(), match.end())
    return sentence is not None and _MAIL_CUE.search(lower, max(0, match.start() - 32), match.start()) is None
