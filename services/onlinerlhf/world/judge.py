"""The gold judge: correct, in the form asked for, no rambling.

It stands for what people really want. Training never sees it, except through a labeler's rankings.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from onlinerlhf.world.tasks import Form, Spec, Task

CORRECT_WEIGHT, FORM_WEIGHT, CONCISE_WEIGHT = 0.5, 0.25, 0.25
_TIE = 1e-9
_Z_95 = 1.959964
_WORD = re.compile(r"[a-z']+")
_ONE_WORD = re.compile(r"[a-z']+")
_COMMAS = re.compile(r"[a-z']+(?:, [a-z']+)*")
_DASHES = re.compile(r"- [a-z']+(?:\n- [a-z']+)*")
_SENTENCES = re.compile(r"(?:[a-z'][a-z',! ]*[a-z'][.!])(?: [a-z'][a-z',! ]*[a-z'][.!])*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A judged answer. Every part and the score lie in [0, 1]."""

    correct: float
    form: float
    concise: float
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WinRate:
    """How often one policy beats another, ties counted as half, with its 95% Wilson interval."""

    rate: float
    low: float
    high: float
    num_prompts: int


def judge(task: Task, answer: str) -> Verdict:
    """Judges one answer to one task. An empty answer scores 0 in every part."""
    text = answer.strip()
    words = _WORD.findall(text.lower())
    if not words:
        return Verdict(correct=0.0, form=0.0, concise=0.0, score=0.0)
    correct = _correct(task.spec, frozenset(words))
    form = 1.0 if _in_form(task.spec, text) else 0.0
    limit = task.spec.max_words
    concise = min(1.0, max(0.0, (2 * limit - len(words)) / limit))
    score = CORRECT_WEIGHT * correct + FORM_WEIGHT * form + CONCISE_WEIGHT * concise
    return Verdict(correct=correct, form=form, concise=concise, score=score)


def compare(task: Task, a: str, b: str) -> float:
    """1.0 when answer `a` is better, 0.0 when `b` is, 0.5 for a tie."""
    difference = judge(task, a).score - judge(task, b).score
    if abs(difference) <= _TIE:
        return 0.5
    return 1.0 if difference > 0 else 0.0


def win_rate(outcomes: Sequence[float]) -> WinRate:
    """Mean of `compare` outcomes with the Wilson score interval (Wilson 1927) at 95%.

    A tie counts as half a win; taking p(1-p) for the variance then errs on the wide side.
    """
    n = len(outcomes)
    if n == 0:
        raise ValueError("win_rate needs at least one outcome, got none")
    p = sum(outcomes) / n
    centre = (p + _Z_95**2 / (2 * n)) / (1 + _Z_95**2 / n)
    half = _Z_95 * math.sqrt(p * (1 - p) / n + _Z_95**2 / (4 * n * n)) / (1 + _Z_95**2 / n)
    return WinRate(rate=p, low=max(0.0, centre - half), high=min(1.0, centre + half), num_prompts=n)


def _correct(spec: Spec, words: frozenset[str]) -> float:
    """Share of what was asked for, less what should not be there."""
    needed = sum(part.count for part in spec.wanted)
    found = sum(min(part.count, len(part.words & words)) for part in spec.wanted)
    return max(0.0, found - len(spec.rivals & words)) / needed


def _in_form(spec: Spec, text: str) -> bool:
    if spec.form is Form.WORD:
        return _ONE_WORD.fullmatch(text) is not None
    if spec.form is Form.COMMAS:
        return _COMMAS.fullmatch(text) is not None and text.count(",") + 1 == spec.count
    if spec.form is Form.DASHES:
        return _DASHES.fullmatch(text) is not None and text.count("\n") + 1 == spec.count
    return _SENTENCES.fullmatch(text) is not None and text.count(".") == spec.count
