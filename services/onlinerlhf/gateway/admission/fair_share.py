"""Whose prompt is fed next: the tenant's that has had the least training mass (samples) so far. Pure.

A tenant joins level with the least served, and is forgotten only when it would be next and has nothing waiting, so
neither idling nor coming and going earns anything. (Start-time fair queueing, Goyal et al. 1996, with equal weights.)
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One that may have prompts waiting."""

    name: str
    mass: float
    """Samples fed, counted from where it joined."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The next to be fed; without a sample, the tenant has nothing waiting."""

    tenant: str
    sample_id: str


def turns(
    tenants: Sequence[Tenant], heads: Sequence[Sequence[str]], *, page: int, ceiling: float, num_samples: int
) -> list[Turn]:
    """The next `num_samples` in order, as far as is known.

    heads: the first ids of each tenant's list, as many as `page`; fewer are all there are. ceiling: the least mass of
    the tenants not given.
    """
    queue = [(tenant.mass, tenant.name, iter(ids)) for tenant, ids in zip(tenants, heads, strict=True)]
    is_whole = {tenant.name: len(ids) < page for tenant, ids in zip(tenants, heads, strict=True)}
    heapq.heapify(queue)
    planned: list[Turn] = []
    num_planned = 0
    while queue and num_planned < num_samples:
        mass, name, ids = heapq.heappop(queue)
        sample_id = next(ids, "")
        if mass > ceiling or not (sample_id or is_whole[name]):
            break
        planned.append(Turn(name, sample_id))
        if sample_id:
            num_planned += 1
            heapq.heappush(queue, (mass + 1, name, ids))
    return planned
