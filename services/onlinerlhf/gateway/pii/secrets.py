"""API keys, tokens, private keys and credentials in URLs. Pure and linear.

A form with its issuer's mark is believed unless it is plainly a placeholder; our own keys prove themselves by their
checksum. What has no mark is left to `assignments`.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator

from onlinerlhf.gateway.access.key_format import checksum
from onlinerlhf.gateway.pii.contact import Span
from onlinerlhf.gateway.pii.findings import Kind
from onlinerlhf.gateway.pii.key_formats import KEY_FORMATS
from onlinerlhf.gateway.pii.offsets import View
from onlinerlhf.gateway.pii.prefilter import any_of
from onlinerlhf.gateway.pii.windows import Windows, longest, matches

_OURS = re.compile(r"(?<![A-Za-z0-9])(orlhf_(?:pg|pr)_[0-9A-Za-z]{12}[0-9A-Za-z]{32})([0-9A-Za-z]{6})(?![A-Za-z0-9])")
_JWT = re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,4000}\.[A-Za-z0-9_-]{8,8000}(?:\.[A-Za-z0-9_-]{0,4000}){0,3}")
_PEM_BEGIN = re.compile(r"-{3,5}[ ]?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?[ ]?-{3,5}")
_PEM_END = re.compile(r"-{3,5}[ ]?END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?[ ]?-{3,5}")
_PEM_BODY = re.compile(r"(?:[A-Za-z0-9+/=:,\s\-\"'.()]|\\[nr]){0,20000}")
_PUTTY = re.compile(r"PuTTY-User-Key-File-[23]: [^\n]{0,80}")
_URL = re.compile(
    r"(?<![A-Za-z0-9])[A-Za-z][A-Za-z0-9+.\-]{1,20}://([^\s:/@\"'<>]{0,64}):([^\s/@\"'<>]{1,128})@"
    r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_\-.]{1,253})(?::[0-9]{1,5})?"
)
_USERINFO_TOKEN = re.compile(r"(?<![A-Za-z0-9])https?://([A-Za-z0-9_\-]{20,128})@[A-Za-z0-9.\-]{3,253}")
_TEMPLATE = re.compile(r"[$%]?\{|\$\(|\*{3}|\.{3}|^\$[A-Za-z_]|^%[a-z]$|^<|^x{3,}$|^\[|^![a-z]+$", re.IGNORECASE)

# Two marks are of one common character; what has them is long.
_MARKS = any_of([form.mark for form in KEY_FORMATS if len(form.mark) > 1] + ["eyJ"])
_LONG = 40

# What documentation writes where a login belongs.
_EXAMPLE_LOGIN = re.compile(
    r"(?:(?:db)?user(?:name)?|usr|login|name)?:(?:pass(?:word|wd)?|pwd|pw|secret|token)|guest:guest|anonymous:.*|foo:bar",
    re.IGNORECASE,
)


def entropy(written: str) -> float:
    """Bits a character, by the frequencies within: H = - sum p log2 p."""
    counts = Counter(written)
    return -sum(count / len(written) * math.log2(count / len(written)) for count in counts.values())


def is_template(value: str) -> bool:
    """Whether something is to be filled in rather than used: ${TOKEN}, ****, <password>."""
    return _TEMPLATE.search(value) is not None


def keys(view: View, windows: Windows) -> Iterator[Span]:
    """Tokens by their issuers' forms."""
    text = view.text
    for match in matches(_OURS, text, windows):
        # A mistyped key is still nearly the key.
        if checksum(match.group(1)) == match.group(2) or _looks_random(match.group(1)[9:]):
            yield Kind.API_KEY, match.start(), match.end()
    # A mark is looked for in the long words only: there are many marks.
    words = " ".join(text[start:end] for start, end in windows)
    if _MARKS.search(words) is None and longest(windows) < _LONG:
        return
    for form in KEY_FORMATS:
        if form.mark in words:
            for match in matches(form.pattern, text, windows):
                if _looks_random(match.group().removeprefix(form.mark)):
                    yield Kind.API_KEY, match.start(), match.end()
    if "eyJ" in words:
        for match in matches(_JWT, text, windows):
            yield Kind.JWT, match.start(), match.end()


def url_credentials(view: View) -> Iterator[Span]:
    """`scheme://user:password@host`, and a token as the user."""
    if "://" not in view.text or "@" not in view.text:
        return
    for match in _URL.finditer(view.text):
        user, password = match.groups()
        if not (is_template(user) or is_template(password) or _EXAMPLE_LOGIN.fullmatch(f"{user}:{password}")):
            yield Kind.URL_CREDENTIALS, match.start(), match.end()
    for match in _USERINFO_TOKEN.finditer(view.text):
        if _looks_random(match.group(1)):
            yield Kind.URL_CREDENTIALS, match.start(), match.end()


def private_keys(view: View) -> Iterator[Span]:
    """PEM blocks of private keys, whole or cut off, and PuTTY's files."""
    text = view.text
    place = 0
    if "PRIVATE KEY" in text:
        while (begin := _PEM_BEGIN.search(text, place)) is not None:
            body = _PEM_BODY.match(text, begin.end())
            stop = begin.end() if body is None else body.end()
            end = _PEM_END.search(text, begin.end(), stop + 60)
            place = max(stop, begin.end()) if end is None else end.end()
            yield Kind.PRIVATE_KEY, begin.start(), place
    if "PuTTY-User-Key-File" in text:
        for match in _PUTTY.finditer(text):
            yield Kind.PRIVATE_KEY, match.start(), match.end()


def _looks_random(body: str) -> bool:
    """Not xxxx, not YOUR_KEY_HERE, not a-name-of-words: enough different characters, and digits or both cases."""
    if len(set(body)) < 6 or "your" in body.lower():
        return False
    has_digit = any(character.isdigit() for character in body)
    return has_digit or (body.lower() != body and body.upper() != body)
