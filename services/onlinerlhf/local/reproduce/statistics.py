"""Win rates over seeds, with intervals that know that prompts of one seed share its models."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np

from onlinerlhf.world.judge import WinRate, win_rate

NUM_RESAMPLES = 10_000
_PERCENTILES = (2.5, 97.5)
_TIE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How often one policy's answer beats another's, ties counted half."""

    seeds: tuple[WinRate, ...]
    """Of each seed, with its Wilson interval."""
    pooled: Interval
    """Over seeds: seeds count alike."""


def outcomes(scores: Sequence[float], rivals: Sequence[float]) -> list[float]:
    """1 where the gold score is higher than the rival's answer to the same prompt, 0.5 for a tie, else 0."""
    gaps = [score - rival for score, rival in zip(scores, rivals, strict=True)]
    return [0.5 if abs(gap) <= _TIE else float(gap > 0) for gap in gaps]


def compared(per_seed: Sequence[Sequence[float]]) -> Comparison:
    """From the outcomes of each seed."""
    return Comparison(seeds=tuple(win_rate(seed) for seed in per_seed), pooled=pooled(per_seed))


def pooled(per_seed: Sequence[Sequence[float]]) -> Interval:
    """The mean over seeds of each seed's mean, with its interval by a two-stage bootstrap.

    Seeds are drawn with replacement, and then the prompts of each drawn seed: models of one seed are one draw, however
    many prompts they answer (Davison and Hinkley 1997, section 3.8). Percentiles 2.5 and 97.5 of 10,000 draws.
    """
    if not per_seed or not all(per_seed):
        raise ValueError("an interval over seeds needs at least one number of each")
    rng, size = np.random.default_rng(0), (NUM_RESAMPLES, len(per_seed))
    of_prompts = np.stack([_resampled_means(seed, rng, size) for seed in per_seed])  # [seeds, draws, places]
    chosen = rng.integers(len(per_seed), size=size)  # [draws, places]: the seed in each place
    draws = np.take_along_axis(of_prompts, chosen[None], axis=0)[0].mean(axis=1)  # [draws]
    low, high = np.percentile(draws, _PERCENTILES)
    return Interval(value=mean(mean(seed) for seed in per_seed), low=float(low), high=float(high))


def _resampled_means(numbers: Sequence[float], rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Means of as many of these numbers, drawn with replacement. Few differ, so how often each is drawn will do."""
    values, counts = np.unique(numbers, return_counts=True)
    drawn = rng.multinomial(len(numbers), counts / len(numbers), size=size)  # [draws, places, values]
    return np.asarray(drawn @ values / len(numbers))
