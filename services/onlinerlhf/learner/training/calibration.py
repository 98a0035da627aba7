"""How far a reward model's numbers can be trusted: its accuracy with an interval, and its calibration.

A reward model says how sure it is: it holds response a better than b with probability sigmoid(score a - score b). It
is calibrated when, of the pairs it is 80% sure of, labelers agree in 80%.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NUM_BINS = 10
_Z_95 = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedPair:
    """Two responses that a labeler ranked differently, as the model sees them."""

    gap: float
    """Score of the one the labeler preferred minus the other's."""
    weight: float = 1.0
    """1 / pairs of its ranking: a ranking counts once, however many responses it has."""

    @property
    def confidence(self) -> float:
        """The model's probability, 0.5 to 1, that the response it scores higher is the better one."""
        return 1.0 / (1.0 + math.exp(-abs(self.gap)))

    @property
    def is_right(self) -> bool:
        """Whether the labeler and the model prefer the same one. Equal scores prefer none."""
        return self.gap > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Pairs of which the model is about equally sure."""

    low: float
    high: float
    num_pairs: int
    predicted: float | None
    """Mean confidence; None in an empty bin."""
    observed: float | None
    """Share in which the labeler agrees."""
    share: float
    """Of all pairs, weighted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Ten bins of confidence from 0.5 to 1, and the expected calibration error."""

    bins: tuple[Bin, ...]
    expected_error: float
    """sum over bins of share * |predicted - observed| (Guo et al. 2017, equation 3)."""

    def as_dict(self) -> dict[str, Any]:
        """For a report."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """A share of pairs, averaged over rankings, with its 95% interval."""

    rankings: int
    pairs: int
    accuracy: float
    low: float
    high: float


def calibration(pairs: Sequence[JudgedPair]) -> Calibration:
    """Sorts pairs into bins by confidence."""
    if not pairs:
        raise ValueError("there are no pairs to measure calibration on")
    total = sum(pair.weight for pair in pairs)
    members: list[list[JudgedPair]] = [[] for _ in range(NUM_BINS)]
    for pair in pairs:
        place = int((pair.confidence - 0.5) * 2 * NUM_BINS)
        members[min(place, NUM_BINS - 1)].append(pair)
    bins = tuple(_bin(place, inside, total) for place, inside in enumerate(members))
    error = sum(
        each.share * abs(each.predicted - each.observed)
        for each in bins
        if each.predicted is not None and each.observed is not None
    )
    return Calibration(bins=bins, expected_error=error)


def _bin(place: int, inside: Sequence[JudgedPair], total: float) -> Bin:
    weight = sum(pair.weight for pair in inside)
    width = 0.5 / NUM_BINS
    return Bin(
        low=round(0.5 + place * width, 6),
        high=round(0.5 + (place + 1) * width, 6),
        num_pairs=len(inside),
        predicted=sum(pair.weight * pair.confidence for pair in inside) / weight if inside else None,
        observed=sum(pair.weight * pair.is_right for pair in inside) / weight if inside else None,
        share=weight / total,
    )


def accuracy(rankings: Sequence[Sequence[JudgedPair]]) -> Accuracy:
    """Share of pairs in which the model agrees, averaged over rankings, with the Wilson score interval (Wilson 1927).

    Pairs of one ranking depend on each other, so the interval counts rankings, not pairs; as a ranking's share lies
    between 0 and 1, taking p(1-p) for its variance errs on the wide side.
    """
    n = len(rankings)
    if n == 0:
        raise ValueError("there are no rankings to measure accuracy on")
    p = sum(sum(pair.is_right for pair in pairs) / len(pairs) for pairs in rankings) / n
    centre = (p + _Z_95**2 / (2 * n)) / (1 + _Z_95**2 / n)
    half = _Z_95 * math.sqrt(p * (1 - p) / n + _Z_95**2 / (4 * n * n)) / (1 + _Z_95**2 / n)
    return Accuracy(
        rankings=n,
        pairs=sum(map(len, rankings)),
        accuracy=p,
        low=max(0.0, centre - half),
        high=min(1.0, centre + half),
    )


def draw_calibration(measured: Calibration, path: Path) -> None:
    """Predicted against observed, over how many pairs there are at each confidence."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (upper, lower) = plt.subplots(2, 1, figsize=(5, 6), layout="constrained", sharex=True, height_ratios=(3, 1))
    filled = [each for each in measured.bins if each.num_pairs]
    upper.plot([0.5, 1.0], [0.5, 1.0], color="grey", linestyle="--", linewidth=1, label="calibrated")
    upper.plot([each.predicted for each in filled], [each.observed for each in filled], marker="o", label="this model")
    upper.set_title(f"expected calibration error {measured.expected_error:.3f}", fontsize=10)
    upper.set_ylabel("share in which labelers agree")
    upper.legend(fontsize=8)
    width = measured.bins[0].high - measured.bins[0].low
    lower.bar([each.low for each in measured.bins], [each.share for each in measured.bins], width=width, align="edge")
    lower.set_ylabel("share of pairs")
    lower.set_xlabel("probability the model gives its preference: sigmoid(score gap)")
    for axis in (upper, lower):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
