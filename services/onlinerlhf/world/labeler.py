"""Simulated labelers: they rank responses by the gold judge's score as seen through their own noise."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from onlinerlhf.world.judge import judge
from onlinerlhf.world.tasks import Task

MIN_RESPONSES, MAX_RESPONSES = 4, 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Labeler:
    """Someone who ranks responses. `noise` is the standard deviation added to each score, in score units."""

    name: str
    noise: float


LABELERS = (
    Labeler(name="steady", noise=0.04),
    Labeler(name="average", noise=0.08),
    Labeler(name="tired", noise=0.16),
)
"""Whose rankings a reward model learns from."""
HELD_OUT_LABELERS = (
    Labeler(name="thorough", noise=0.06),
    Labeler(name="hurried", noise=0.12),
)
"""Whose rankings a reward model is only ever measured on."""


def rank(task: Task, responses: Sequence[str], labeler: Labeler, rng: random.Random) -> tuple[int, ...]:
    """Indices of the responses, best first, as this labeler sees them.

    Equal texts are one response to a person: they get the same noise and stay neighbours.
    """
    if not MIN_RESPONSES <= len(responses) <= MAX_RESPONSES:
        raise ValueError(f"a labeler ranks {MIN_RESPONSES} to {MAX_RESPONSES} responses, got {len(responses)}")
    seen: dict[str, float] = {}
    for response in responses:
        if response not in seen:
            seen[response] = judge(task, response).score + rng.gauss(0.0, labeler.noise)
    return tuple(sorted(range(len(responses)), key=lambda index: -seen[responses[index]]))


def gold_agreement(task: Task, responses: Sequence[str], ranks: Sequence[int]) -> float:
    """Share of the ranked pairs (0 is best, equal ranks are no pair) in which the gold judge prefers the same response.

    A pair that the judge holds equal counts half. For measuring what a perfect reward model could reach on these
    rankings; nothing is trained on it. Raises ValueError where no pair is ranked.
    """
    golds = [judge(task, response).score for response in responses]
    gaps = [golds[i] - golds[j] for i, a in enumerate(ranks) for j, b in enumerate(ranks) if a < b]
    if not gaps:
        raise ValueError("no two of these responses have different ranks")
    return sum(0.5 if abs(gap) < 1e-6 else float(gap > 0) for gap in gaps) / len(gaps)
