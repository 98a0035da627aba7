"""Where in a text it is worth looking. Pure.

A pattern that begins with a look-behind is tried at every character. Most texts have few long numbers and few long
words, so these are found first, by patterns that begin with a plain character class, and the others run only there.
"""

import re
from collections.abc import Iterator, Sequence

from onlinerlhf.gateway.pii.offsets import View

Windows = Sequence[tuple[int, int]]
"""Start and end of stretches, in order and apart."""

# Six digits or more, with at most three other characters of a number between any two.
_NUMBER = re.compile(r"[0-9](?:[ .\-/()_A-Za-z]{0,3}[0-9]){5,}")
# No key, token or wallet has fewer characters.
_WORD = re.compile(r"[!-~]{20,}")
_MANY = 48
"""So many windows are as dear as the whole text."""


def numbers(view: View) -> Windows:
    """Long numbers with what may belong to them: a plus and a bracket before, a letter or an extension after."""
    return _around(_NUMBER, view.text, before=12, after=20)


def long_words(view: View) -> Windows:
    """Stretches of ASCII without a space."""
    return _around(_WORD, view.text, before=0, after=0)


def matches(pattern: re.Pattern[str], text: str, windows: Windows) -> Iterator[re.Match[str]]:
    """All matches within the windows. Look-behinds see what is before a window, look-aheads nothing after it."""
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
