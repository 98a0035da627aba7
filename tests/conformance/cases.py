"""Random cases: ragged batches whose padding is full of what must never matter, and the count of those that agreed."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from math import exp, inf, nan

import torch
from torch import Tensor

from conformance.reference import Rows

NUM_CASES = 1_000
TOLERANCE = 1e-9
GARBAGE = (nan, inf, -inf, 1e30, -7.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """B rows of T positions; row b's response is at spans[b]. Everything else is garbage."""

    seed: int
    spans: tuple[tuple[int, int], ...]
    tokens: dict[str, Rows]
    """Each [B][T]."""
    scores: list[float]
    is_finished: list[bool]
    groups: list[int]
    """Each group has at least two rows, where the case has two rows."""
    clip_range: float
    kl_coef: float
    gamma: float
    lambda_: float
    max_weight: float
    num_tokens: int
    """Of the minibatch that these rows are a part, or all, of."""

    def tensor(self, name: str) -> Tensor:
        """[B, T], as the package takes it."""
        return torch.tensor(self.tokens[name], dtype=torch.float64)

    def rows(self, name: str) -> Rows:
        """The same without padding, as the reference takes it."""
        return self.cut(self.tokens[name])

    def cut(self, padded: Rows) -> Rows:
        """The response tokens of each row."""
        return [row[start:end] for row, (start, end) in zip(padded, self.spans, strict=True)]

    @property
    def mask(self) -> Tensor:
        """[B, T] bool."""
        positions = torch.arange(len(self.tokens["logprobs"][0]))
        return torch.stack([(positions >= start) & (positions < end) for start, end in self.spans])


def _near(rows: Rows, draw: random.Random, spread: float) -> Rows:
    """Each number moved at random; one in ten stays exactly where it is."""
    return [[x + (draw.gauss(0, spread) if draw.random() > 0.1 else 0.0) for x in row] for row in rows]


def _normal(draw: random.Random, num_rows: int, width: int) -> Rows:
    return [[draw.gauss(0, 1) for _ in range(width)] for _ in range(num_rows)]


def _spans(draw: random.Random, num_rows: int, width: int) -> tuple[tuple[int, int], ...]:
    spans = []
    for row in range(num_rows):
        start = draw.randrange(width)
        # The first row is never empty, so there is always a token; of the others one in twenty is.
        is_empty = row > 0 and draw.random() < 0.05
        spans.append((start, start if is_empty else draw.randint(start + 1, width)))
    return tuple(spans)


def _groups(draw: random.Random, num_rows: int) -> list[int]:
    """Arbitrary numbers, in any order, each at least twice."""
    groups: list[int] = []
    while num_rows - len(groups) >= 2:
        left = num_rows - len(groups)
        size = draw.choice([size for size in range(2, left + 1) if left - size != 1])
        groups += [draw.randrange(10**9)] * size
    draw.shuffle(groups)
    return groups or [0]


def random_case(seed: int, *, min_rows: int = 1) -> Case:
    """B from min_rows to 6, T from 1 to 24."""
    draw = random.Random(seed)
    num_rows, width = draw.randint(min_rows, 6), draw.randint(1, 24)
    spans = _spans(draw, num_rows, width)
    tokens = {"old_logprobs": [[-draw.expovariate(0.5) for _ in range(width)] for _ in range(num_rows)]}
    tokens["logprobs"] = _near(tokens["old_logprobs"], draw, 0.3)
    tokens["ref_logprobs"] = _near(tokens["old_logprobs"], draw, 0.8)
    tokens["behaviour_logprobs"] = _near(tokens["old_logprobs"], draw, 0.6)
    for name in ("rewards", "returns", "old_values", "advantages"):
        tokens[name] = _normal(draw, num_rows, width)
    tokens["values"] = _near(tokens["old_values"], draw, 0.4)
    tokens["weights"] = [[exp(draw.gauss(-0.2, 0.5)) for _ in range(width)] for _ in range(num_rows)]
    for rows in tokens.values():
        for row, (start, end) in zip(rows, spans, strict=True):
            row[:start] = [draw.choice(GARBAGE) for _ in row[:start]]
            row[end:] = [draw.choice(GARBAGE) for _ in row[end:]]
    return Case(
        seed=seed,
        spans=spans,
        tokens=tokens,
        scores=[draw.gauss(0, 1) for _ in range(num_rows)],
        is_finished=[draw.random() < 0.6 for _ in range(num_rows)],
        groups=_groups(draw, num_rows),
        clip_range=draw.uniform(0.05, 0.5),
        kl_coef=draw.choice([0.0, 0.02, draw.uniform(0, 1)]),
        gamma=draw.choice([1.0, draw.uniform(0.5, 1)]),
        lambda_=draw.choice([0.0, 0.95, 1.0, draw.uniform(0, 1)]),
        max_weight=draw.choice([2.0, draw.uniform(0.8, 3)]),
        num_tokens=sum(end - start for start, end in spans) + draw.choice([0, 0, draw.randint(1, 40)]),
    )


@cache
def random_cases(*, min_rows: int = 1) -> tuple[Case, ...]:
    """The same 1,000 for everyone."""
    return tuple(random_case(seed, min_rows=min_rows) for seed in range(NUM_CASES))


@dataclass(slots=True)
class Tally:
    """Which cases were compared, and the largest difference seen."""

    seeds: set[int] = field(default_factory=set)
    worst: float = 0.0

    def numbers(self, seed: int, found: Tensor | list[float], expected: list[float]) -> None:
        """The package's numbers against the reference's."""
        numbers: list[float] = found.tolist() if isinstance(found, Tensor) else found
        differences = [abs(a - b) for a, b in zip(numbers, expected, strict=True)]
        # Not `max(...) <= TOLERANCE` at the end: a NaN would slip through max.
        assert all(difference <= TOLERANCE for difference in differences), f"case {seed}: {numbers} is not {expected}"
        self.worst = max([self.worst, *differences])
        self.seeds.add(seed)

    def tokens(self, case: Case, found: Tensor, expected: Rows) -> None:
        """Token by token; whatever is no response token must be exactly 0."""
        assert found[~case.mask].eq(0).all(), f"case {case.seed}: not 0 outside the response"
        for row, expected_row in zip(case.cut(found.tolist()), expected, strict=True):
            self.numbers(case.seed, row, expected_row)


@contextmanager
def counted() -> Iterator[Tally]:
    """Holds when all the cases, not some, were compared and agreed."""
    tally = Tally()
    yield tally
    assert len(tally.seeds) == NUM_CASES
    print(f"{len(tally.seeds)} cases, largest difference {tally.worst:.1e}")
