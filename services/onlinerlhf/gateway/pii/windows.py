"""Where in a text it is worth looking. Pure.

A pattern that begins with a look-behind is tried at every character. Most texts have few long numbers and few long
words, so these are found first, by patterns that begin with a plain character class, and the others run only there.
"""

import re
from collections.abc import Iterator, Sequence

from onlinerlhf.gateway.pii.offsets import View

Windows = Sequence[tuple[int, int]]
"""Start and end of stretches, in order and apart."""

_DIGIT = re.compile("[0-9]")
MIN_DIGITS = 6
"""Of a long number."""
# At most three other characters of a number between any two digits.
_NUMBER = re.compile(rf"[0-9](?:[ .\-/()_A-Za-z]{{0,3}}[0-9]){{{MIN_DIGITS - 1},}}")
# No key, token or wallet has fewer characters.
_WORD = re.compile(r"[!-~]{20,}")
# What such a stretch lies in; far cheaper to search for.
_NO_SPACES = re.compile(r" [^ ]{20,}")
SHORT = 128
"""Characters of a stretch that is quickly searched."""
_MANY = 48
"""So many windows are as dear as the whole text."""


def numbers(view: View) -> Windows:
    """Long numbers with what may belong to them: a plus and a bracket before, a letter or an extension after."""
    return _around(_NUMBER, view.text, before=12, after=20)


def long_words(view: View) -> Windows:
    """Stretches of ASCII without a space."""
    text = view.text
    chunks = [match.span() for match in _NO_SPACES.finditer(text)]
    if " " not in text[:20]:
        first = text.find(" ")
        chunks.insert(0, (0, len(text) if first < 0 else first))
    windows = [match.span() for start, end in chunks for match in _WORD.finditer(text, start, end)]
    return windows if len(windows) <= _MANY else [(0, len(text))]


def longest(windows: Windows) -> int:
    """How many characters the longest has; 0 without any."""
    return max((end - start for start, end in windows), default=0)


def with_digits(view: View, windows: Windows, at_least: int) -> Windows:
    """Those with so many digits, and the long ones: they are not counted."""
    return [
        (start, end)
        for start, end in windows
        if end - start > SHORT or len(_DIGIT.findall(view.text, start, end)) >= at_least
    ]


def matches(pattern: re.Pattern[str], text: str, windows: Windows) -> Iterator[re.Match[str]]:
    """All matches within the windows. Look-behinds see what is before a window, look-aheads nothing after it."""
    if len(windows) == 1:
        # The usual case, without a generator's price.
        return pattern.finditer(text, *windows[0])
    return _in_each(pattern, text, windows)


def _in_each(pattern: re.Pattern[str], text: str, windows: Windows) -> Iterator[re.Match[str]]:
    for start, end in windows:
        yield from pattern.finditer(text, start, end)


_FIRST = re.compile(r"(\[[^\]]+\]|[A-Za-z0-9])(?:\{([0-9]+)(,[0-9]+)?\})?(?![?*+{|])")


def not_after(*lefts: str, body: str) -> str:
    """`body` where none of the `lefts` is right before it: `(?<!left)body`, but with the look-behind after the first
    character if it can be. A search then skips in C to where that character is, which is many times faster."""
    first = _FIRST.match(body)
    if first is None or "|" in body.split("(", 1)[0]:
        return "".join(f"(?<!{left})" for left in lefts) + body
    character, least, most = first.groups()
    behind = "".join(f"(?<!{left}.)" for left in lefts)
    rest = ""
    if least is not None:
        most = most and f",{int(most[1:]) - 1}"
        rest = f"{character}{{{int(least) - 1}{most or ''}}}"
    return character + behind + rest + body[first.end() :]


def has_any(text: str, words: Sequence[str]) -> bool:
    """Whether any word is a part of the text. A plain loop: a generator doubles its price."""
    for word in words:  # noqa: SIM110
        if word in text:
            return True
    return False


def _around(pattern: re.Pattern[str], text: str, *, before: int, after: int) -> Windows:
    windows: list[tuple[int, int]] = []
    for match in pattern.finditer(text):
        start, end = max(0, match.start() - before), min(len(text), match.end() + after)
        if windows and start <= windows[-1][1]:
            start = windows.pop()[0]
        windows.append((start, end))
    return windows if len(windows) <= _MANY else [(0, len(text))]
