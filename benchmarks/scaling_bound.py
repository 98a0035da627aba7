"""The least GPU-hours of anyone who knows the day in advance and lets no prompt wait longer than a given time.

A linear program that every such schedule satisfies, so its optimum is below them all. Let t_k be the ends of bins of
BIN_SECONDS, n_k the mean number of serving workers in bin k, and C_k the slot-seconds served up to t_k. Then

    C_k - C_(k-1) <= SLOTS * BIN_SECONDS * n_k               nobody serves more than its slots
    C_k <= sum_i min(s_i, max(0, t_k - a_i))                 no prompt is served before it arrives at a_i
    C_k >= sum_i min(s_i, max(0, t_k - a_i - wait))          each is in a slot, for good, from a_i + wait at the latest
    u_k >= n_k - n_(k-1), u_k >= 0                           what is added was started
    n_k >= MIN_REPLICAS
    minimise  BIN_SECONDS * sum n_k + START_SECONDS * sum u_k

Relaxed, that is in the bound's favour: workers are divisible, work may be cut into any pieces and moved between
workers, the limits hold at ends of bins only, the mean over a bin never rises more than the number itself, there may
be any number of workers, and draining is free. Not covered: who lets one prompt in a hundred wait longer, as a p99
allows, could do with a little less.
"""

import numpy as np
from numpy.typing import NDArray
from scaling_fleet import MIN_REPLICAS, SLOTS, START_SECONDS
from scaling_traffic import DAY_SECONDS, Day
from scipy.optimize import linprog  # type: ignore[import-untyped]
from scipy.sparse import diags, hstack, identity, vstack  # type: ignore[import-untyped]

BIN_SECONDS = 30


def least_gpu_hours(day: Day, *, wait_seconds: float) -> float:
    """GPU-hours within the day."""
    ends = np.arange(BIN_SECONDS, DAY_SECONDS + 1, BIN_SECONDS, dtype=float)  # [K]
    num = len(ends)
    at_most = _served(day, ends)
    at_least = _served(day, ends - wait_seconds)
    step = diags([np.ones(num), -np.ones(num - 1)], [0, -1])  # x_k - x_(k-1)
    zero = 0 * identity(num)
    capacity = SLOTS * BIN_SECONDS
    # Columns n, u, C / capacity.
    constraints = vstack([hstack([-identity(num), zero, step]), hstack([step, -identity(num), zero])])
    bounds = np.concatenate([np.zeros(num), [MIN_REPLICAS], np.zeros(num - 1)])
    cost = np.concatenate([np.full(num, BIN_SECONDS), np.full(num, START_SECONDS), np.zeros(num)])
    limits: list[tuple[float, float | None]] = [*[(MIN_REPLICAS, None)] * num, *[(0, None)] * num]
    limits += list(zip(at_least / capacity, at_most / capacity, strict=True))
    found = linprog(cost, A_ub=constraints.tocsr(), b_ub=bounds, bounds=limits, method="highs")
    assert found.success, found.message
    return float(found.fun) / 3600


def _served(day: Day, moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """sum_i min(s_i, max(0, t - a_i)) = sum_i max(0, t - a_i) - sum_i max(0, t - a_i - s_i), for each t."""
    ends = np.sort(day.arrivals + day.services)
    return _past(day.arrivals, moments) - _past(ends, moments)


def _past(points: NDArray[np.int64], moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """sum_i max(0, t - x_i) of ascending x, for each t."""
    sums = np.concatenate([[0.0], np.cumsum(points, dtype=float)])
    counts = np.searchsorted(points, moments, side="right")
    return np.asarray(counts * moments - sums[counts])
