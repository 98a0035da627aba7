"""A day of prompts: a daily swing, bursts that begin without warning, and submissions of many prompts at once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DAY_SECONDS = 86_400
MEAN_PER_SECOND = 6.0
"""Before bursts and bulk submissions."""
SWING = 0.6
"""The busiest hour has 1 + SWING times the mean, the quietest 1 - SWING."""
BURSTS_PER_DAY = 24
BURST_MEAN_SECONDS = 600.0
BURST_FACTORS = (1.5, 4.0)
"""A burst multiplies the rate by a number between these."""
BULKS_PER_DAY = 6
BULK_PROMPTS = (500, 3000)
SERVICE_MEAN_SECONDS = 40.0
"""800 tokens at 20 a second."""
SERVICE_SIGMA = 0.5
"""Of the logarithm."""
SERVICE_LIMITS = (2, 150)


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """Prompt i arrives in second arrivals[i] and takes services[i] whole seconds in a slot."""

    arrivals: NDArray[np.int64]  # [N], ascending
    services: NDArray[np.int64]  # [N]


def make_day(seed: int) -> Day:
    """Poisson arrivals at a rate of its own in every second."""
    draw = np.random.default_rng(seed)
    seconds = np.arange(DAY_SECONDS)
    rate = MEAN_PER_SECOND * (1 - SWING * np.cos(2 * np.pi * seconds / DAY_SECONDS))  # [DAY_SECONDS]
    for _ in range(draw.poisson(BURSTS_PER_DAY)):
        start, length = draw.integers(DAY_SECONDS), draw.exponential(BURST_MEAN_SECONDS)
        rate[start : start + int(length)] *= draw.uniform(*BURST_FACTORS)
    counts = draw.poisson(rate)
    for _ in range(draw.poisson(BULKS_PER_DAY)):
        counts[draw.integers(DAY_SECONDS)] += draw.integers(*BULK_PROMPTS)
    arrivals = np.repeat(seconds, counts)
    return Day(arrivals=arrivals, services=draw_services(draw, len(arrivals)))


def draw_services(draw: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Lognormal, with mean SERVICE_MEAN_SECONDS."""
    mu = np.log(SERVICE_MEAN_SECONDS) - SERVICE_SIGMA**2 / 2
    return np.clip(np.rint(draw.lognormal(mu, SERVICE_SIGMA, count)), *SERVICE_LIMITS).astype(np.int64)
