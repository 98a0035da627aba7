"""How many workers the work in sight can use, and from which pools they come. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from onlinerlhf.scaler.observation import Pipeline, PoolSpec, PoolState

ROUNDS: Final = 2
"""A pool is large enough while each worker's share is at most so many times its slots: the second round begins sooner
than a worker that is started for it. Measured by benchmarks/scaling.py."""
LEARNER_SECONDS: Final = 120.0
"""A learner that has samples queued for so long is in no hurry: longer than a worker takes to start and to sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What all pools together are wanted for."""

    samples: int
    """That workers should hold now; at most the backlog."""
    users: int
    """User requests in progress."""
    backlog: int
    """Undelivered and in flight."""
    admitted: int
    """How many more samples workers should begin for the learner, at most what its staleness bound admits."""

    @property
    def is_bound_by_learner(self) -> bool:
        """Prompts wait that no worker may begin yet."""
        return self.samples < self.backlog

    @property
    def is_empty(self) -> bool:
        """Nothing waits and nothing is in progress."""
        return self.backlog == 0 and self.users == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The sizes that the demand alone allows a pool. All but `unbounded` are within the pool's bounds."""

    enough: int
    """Fewer, and work waits for longer than a new worker takes to start: grow to this."""
    comfortable: int
    """More would have empty slots: shrink to this."""
    unbounded: int
    """`enough`, were there no maximum."""
    is_for_users: bool
    """Users, not samples, ask for that many."""

    def nearest(self, replicas: int) -> int:
        """The size that asks for the smallest change."""
        return min(max(replicas, self.enough), self.comfortable)


def demand_of(pipeline: Pipeline, pools: Sequence[PoolState]) -> Demand:
    """min(backlog, in flight + begin). Undelivered entries alone would fall to 0 while every worker is busy.

    A worker begins a sample while num_ahead + num_in_flight < max_samples_ahead, so `begin` is at most what is missing
    there: beyond that, more workers would only wait for the learner.

    That room comes a whole batch at a time, and a pool that followed it would grow and shrink with every step of the
    learner. So while num_ahead lasts the learner for LEARNER_SECONDS at its rate r, in flight + begin is what it uses
    in that time, r * LEARNER_SECONDS, or what is in flight, if more.
    """
    admitted = max(0, pipeline.max_samples_ahead - pipeline.num_ahead - pipeline.num_in_flight)
    usable = pipeline.num_in_flight + admitted
    in_time = round((pipeline.learner_samples_per_second or 0.0) * LEARNER_SECONDS)
    if 0 < in_time <= pipeline.num_ahead:
        usable = max(pipeline.num_in_flight, in_time)
        admitted = min(admitted, usable - pipeline.num_in_flight)
    return Demand(
        samples=min(pipeline.backlog, usable),
        users=sum(worker.num_user_requests for pool in pools for worker in pool.workers),
        backlog=pipeline.backlog,
        admitted=admitted,
    )


def allocate(demand: Demand, pools: Sequence[PoolState]) -> Mapping[str, Wish]:
    """A wish for every pool that is the scaler's to size, by name."""
    enough = _share_out(demand, pools, rounds=ROUNDS)
    comfortable = _share_out(demand, pools, rounds=1)
    return {
        name: Wish(
            enough=share.granted,
            comfortable=comfortable[name].granted,
            unbounded=share.asked,
            is_for_users=share.is_for_users,
        )
        for name, share in enough.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Share:
    asked: int
    granted: int
    is_for_users: bool


def _share_out(demand: Demand, pools: Sequence[PoolState], *, rounds: int) -> Mapping[str, _Share]:
    """Replicas by pool, where each works off `rounds` times its slots.

    Replicas that are there in any case (minimums, an operator's sizes, paused pools) take their share first. The rest
    goes to the pools by priority, then name, each up to its maximum. A worker serves its samples and its users at the
    same time, in slots of their own, so a pool needs the larger of the two counts, not their sum.
    """
    committed = {pool.spec.name: _committed(pool) for pool in pools}
    samples = demand.samples - sum(committed[pool.spec.name] * rounds * pool.spec.samples_per_replica for pool in pools)
    users = demand.users - sum(committed[pool.spec.name] * pool.spec.users_per_replica for pool in pools)
    # Prompts wait that the learner does not admit yet: one worker stays, or comes, for when it does.
    wanted = 0 if demand.is_empty or any(committed.values()) else 1
    shares: dict[str, _Share] = {}
    for spec in _by_priority(pools):
        for_samples = max(_ceil(samples, rounds * spec.samples_per_replica), wanted)
        for_users = _ceil(users, spec.users_per_replica)
        extra = max(for_samples, for_users)
        granted = min(extra, max(0, spec.max_replicas - spec.min_replicas))
        samples -= granted * rounds * spec.samples_per_replica
        users -= granted * spec.users_per_replica
        wanted = max(0, wanted - granted)
        shares[spec.name] = _Share(
            asked=spec.min_replicas + extra,
            granted=spec.min_replicas + granted,
            is_for_users=for_users > for_samples,
        )
    return shares


def is_sized_by_hand(pool: PoolState) -> bool:
    """An operator decides, not the demand."""
    return pool.spec.paused or pool.spec.fixed_replicas is not None


def _committed(pool: PoolState) -> int:
    if pool.spec.paused:
        return pool.replicas
    return pool.spec.min_replicas if pool.spec.fixed_replicas is None else pool.spec.fixed_replicas


def _by_priority(pools: Sequence[PoolState]) -> list[PoolSpec]:
    specs = [pool.spec for pool in pools if not is_sized_by_hand(pool)]
    return sorted(specs, key=lambda spec: (-spec.priority, spec.name))


def _ceil(count: int, per_replica: int) -> int:
    return max(0, math.ceil(count / per_replica))
