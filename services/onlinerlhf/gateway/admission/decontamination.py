"""Keeps evaluation prompts out of training. Pure but for `load`.

A prompt is contaminated where its words are an evaluation prompt's, case and punctuation aside, or where any 13 words
in a row are (Brown et al. 2020, appendix C, used 13-grams). Shorter evaluation prompts count as a whole only: a few
common words in a row prove nothing.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.gateway.admission.normalise import comparable

WINDOW_WORDS: Final = 13

# A character of a script without spaces is a word of its own.
_UNSPACED: Final = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD: Final = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+")


@dataclass(frozen=True, slots=True)
class EvaluationPrompts:
    """An index of evaluation prompts."""

    wholes: frozenset[str] = frozenset()
    windows: frozenset[str] = frozenset()
    openers: frozenset[str] = frozenset()
    """First words of windows: few of a prompt's windows begin with one, so few are looked up."""

    @classmethod
    def of(cls, prompts: Iterable[str]) -> "EvaluationPrompts":
        """From texts."""
        wholes, windows, openers = set(), set(), set()
        for prompt in prompts:
            words = _words(comparable(prompt))
            wholes.add(" ".join(words))
            for start in range(len(words) - WINDOW_WORDS + 1):
                windows.add(_window(words, start))
                openers.add(words[start])
        return cls(frozenset(wholes), frozenset(windows), frozenset(openers))

    def hold(self, text: str) -> bool:
        """Whether a comparable text is, or has a part of, one of them."""
        if not self.wholes:
            return False
        words = _words(text)
        if " ".join(words) in self.wholes:
            return True
        starts = range(len(words) - WINDOW_WORDS + 1)
        return any(words[start] in self.openers and _window(words, start) in self.windows for start in starts)


def load(path: Path) -> EvaluationPrompts:
    """From JSON Lines with `prompt`. Raises ConfigError, which names the line."""
    prompts = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read decontamination_file {path}: {type(error).__name__}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        prompt = row.get("prompt") if isinstance(row, dict) else None
        if not isinstance(prompt, str) or not _words(comparable(prompt)):
            raise ConfigError(f'{path} line {number}: expected an object with a text under "prompt"')
        prompts.append(prompt)
    return EvaluationPrompts.of(prompts)


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


def _window(words: Sequence[str], start: int) -> str:
    return " ".join(words[start : start + WINDOW_WORDS])
