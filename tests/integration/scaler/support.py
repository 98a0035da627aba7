"""Scalers within the test's process, with signals that the test sets."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from kube.cluster import Cluster
from onlinerlhf.core.errors import Unavailable
from onlinerlhf.runtime.health import Health
from onlinerlhf.scaler.app import Scaler
from onlinerlhf.scaler.config import ScalerConfig
from onlinerlhf.scaler.kube import Kube
from onlinerlhf.scaler.observation import Pipeline, Pod, Worker

FAST = {"poll_seconds": 0.2, "lease_seconds": 5.0, "renew_seconds": 4.0, "retry_seconds": 0.1}
ON_A_CLUSTER = {"poll_seconds": 1.0, "lease_seconds": 6.0, "renew_seconds": 4.0, "retry_seconds": 0.5}


@dataclass
class StubSignals:
    """What the run says of itself, as set by the test."""

    backlog: int = 0
    in_hand: dict[str, int] = field(default_factory=dict)
    """Pod name -> samples."""
    users: dict[str, int] = field(default_factory=dict)
    away: bool = False
    refuses_cordons: bool = False
    cordoned: set[str] = field(default_factory=set)

    async def pipeline(self) -> Pipeline:
        if self.away:
            raise Unavailable("Redis cannot be reached")
        held = sum(self.in_hand.values())
        return Pipeline(
            num_waiting=max(self.backlog - held, 0),
            num_in_flight=held,
            num_ahead=0,
            max_samples_ahead=100_000,
            oldest_seconds=3.0 if self.backlog else 0.0,
            learner_version=7,
        )

    async def workers(self, pods: Sequence[Pod]) -> tuple[Worker, ...]:
        return tuple(
            Worker(
                name=pod.name,
                ready=pod.ready,
                num_in_flight=self.in_hand.get(pod.name, 0),
                num_user_requests=self.users.get(pod.name, 0),
                version=7,
                started=pod.started,
                cordoned=pod.name in self.cordoned,
            )
            for pod in pods
        )

    async def cordon(self, workers: Sequence[str], *, lift: Sequence[str]) -> None:
        if self.away or self.refuses_cordons:
            raise Unavailable("Redis cannot be reached")
        self.cordoned = (self.cordoned - set(lift)) | set(workers)


@dataclass
class Replica:
    """One scaler."""

    health: Health
    stop: asyncio.Event
    task: "asyncio.Task[None]"

    async def end(self) -> None:
        """A clean stop."""
        self.stop.set()
        await asyncio.wait_for(self.task, 10)

    async def kill(self) -> None:
        """As SIGKILL would: nothing is released."""
        self.task.cancel()
        await asyncio.wait([self.task], timeout=10)


@asynccontextmanager
async def scaling(
    cluster: Cluster, signals: StubSignals, *, identity: str = "scaler-a", **settings: Any
) -> AsyncIterator[Replica]:
    """A scaler for the length of the block."""
    config = ScalerConfig(**{**(FAST if cluster.fake else ON_A_CLUSTER), **settings})
    health, stop = Health("scaler"), asyncio.Event()
    async with await Kube.connect(cluster.kubeconfig, namespace=cluster.namespace) as kube:
        scaler = Scaler(kube, signals, config, health, identity=identity)
        replica = Replica(health, stop, asyncio.create_task(scaler.run(stop), name=identity))
        try:
            yield replica
        finally:
            await replica.kill()
