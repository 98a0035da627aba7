"""Takes snapshots of a running platform, from outside, as any operator could."""

import asyncio
import tomllib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import grpc
from pydantic import SecretStr
from redis.exceptions import RedisError

from onlinerlhf.core.errors import OnlineRLHFError
from onlinerlhf.core.samples import Stage
from onlinerlhf.local import probes
from onlinerlhf.local.child import ChildState
from onlinerlhf.local.endpoints import Endpoints, ProcessEntry
from onlinerlhf.local.snapshot import (
    STREAMS,
    ConsumerView,
    LearnerView,
    LedgerView,
    Limits,
    RolloutView,
    ServiceView,
    Snapshot,
    StageView,
    WorkersView,
)
from onlinerlhf.rollout.config import RolloutConfig
from onlinerlhf.runtime import redis
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger, LedgerCounts
from onlinerlhf.runtime.streams import Streams

T = TypeVar("T")
REDIS_DEADLINE_SECONDS = 5.0


class Monitor:
    """Asks Redis and every room; a room that does not answer becomes a value, not an exception."""

    def __init__(self, endpoints: Callable[[], Endpoints]) -> None:
        self._endpoints = endpoints
        first = endpoints()
        run = RunConfig(id=first.run_id, redis_url=SecretStr(first.redis_url))
        self._redis = redis.connect(run)
        self._keys = RunKeys(run.id)
        self._streams = Streams(self._redis, self._keys)
        self._ledger = Ledger(self._redis, self._keys)
        self._limits = read_limits(Path(first.run_dir) / "platform.toml")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._redis.aclose()

    @property
    def ledger(self) -> Ledger:
        """The run's ledger, for questions about single samples."""
        return self._ledger

    async def snapshot(self) -> Snapshot:
        """One moment; takes as long as the slowest answer, a few seconds at most."""
        endpoints = self._endpoints()
        rooms = endpoints.rooms
        queues = self._safe_queues()
        services, workers, learner, (redis_error, stages, pools, ledger) = await asyncio.gather(
            asyncio.gather(*(_ask_service(room) for room in rooms)),
            asyncio.gather(*(_ask_worker(room) for room in rooms if room.name.startswith("rollout-"))),
            _ask_learner(endpoints.address("learner")),
            queues,
        )
        return Snapshot(
            run_id=endpoints.run_id,
            services=tuple(services),
            redis_error=redis_error,
            stages=stages,
            pool_new=pools[0],
            pool_reuse=pools[1],
            ledger=ledger,
            rollouts=tuple(worker for worker in workers if worker is not None),
            workers=workers_view(endpoints),
            learner=learner,
            limits=self._limits,
        )

    async def _safe_queues(self) -> tuple[str, dict[Stage, StageView], tuple[int, int], LedgerView | None]:
        try:
            async with asyncio.timeout(REDIS_DEADLINE_SECONDS):
                stages = {stage: await self._stage(stage) for stage in STREAMS}
                counts = await self._ledger.counts()
                pools = counts.pending[Stage.POOL], await self._redis.llen(self._keys.pool_reuse)
                ledger = ledger_view(counts)
        except (RedisError, OSError, TimeoutError, OnlineRLHFError) as error:
            return f"Redis does not answer ({type(error).__name__})", {}, (0, 0), None
        return "", stages, pools, ledger

    async def _stage(self, stage: Stage) -> StageView:
        consumers = await self._streams.consumers(stage)
        return StageView(
            backlog=await self._streams.backlog(stage),
            consumers=tuple(
                ConsumerView(name=each.name, pending=each.pending, idle_seconds=each.idle_seconds) for each in consumers
            ),
            num_dead=await self._redis.xlen(self._keys.dead(stage)),
        )


def workers_view(endpoints: Endpoints) -> WorkersView:
    """Counted by what their supervisor says of them."""
    states = [worker.state for worker in endpoints.workers]
    num_draining = states.count(ChildState.DRAINING)
    return WorkersView(
        desired=endpoints.desired_workers,
        current=len(states) - num_draining,
        ready=states.count(ChildState.READY),
        draining=num_draining,
        places=endpoints.max_workers,
    )


def ledger_view(counts: LedgerCounts) -> LedgerView:
    """The counters as plain values."""
    return LedgerView(
        admitted=counts.admitted,
        trained=counts.trained,
        dropped={str(reason): number for reason, number in counts.dropped.items()},
        pending={str(stage): number for stage, number in counts.pending.items()},
        imbalance=counts.imbalance,
    )


def read_limits(config_path: Path) -> Limits:
    """The limits in force, from the generated settings or the room's defaults."""
    section = tomllib.loads(config_path.read_text()).get("rollout", {}) if config_path.exists() else {}
    fields = RolloutConfig.model_fields
    return Limits(
        max_samples_ahead=int(section.get("max_samples_ahead", fields["max_samples_ahead"].default)),
        lease_seconds=float(section.get("lease_seconds", fields["lease_seconds"].default)),
    )


async def _ask_service(room: ProcessEntry) -> ServiceView:
    view = ServiceView(name=room.name, restarts=room.restarts, state=room.state)
    answer = await _answer(room.address, probes.ask_components)
    if isinstance(answer, str):
        return replace(view, error=room.reason if room.state == ChildState.FAILED else answer)
    components, uptime = answer
    return replace(view, components=components, uptime_seconds=uptime)


async def _ask_worker(room: ProcessEntry) -> RolloutView | None:
    answer = await _answer(room.address, lambda channel: probes.ask_rollout(channel, room.name))
    return None if isinstance(answer, str) else replace(answer, state=room.state)


async def _ask_learner(address: str) -> LearnerView | None:
    answer = await _answer(address, probes.ask_learner)
    return None if isinstance(answer, str) else answer


async def _answer(address: str, ask: Callable[[grpc.aio.Channel], Awaitable[T]]) -> T | str:
    try:
        async with probes.fresh_channel(address) as channel:
            return await ask(channel)
    except grpc.aio.AioRpcError as error:
        return f"no answer on {address} ({error.code().name})"
