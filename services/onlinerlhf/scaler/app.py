"""Composition root of the scaler.

lease ──held──► controller (turns, watches, watchdog)          not held: healthy, ready, idle
  └ lost: the process ends non-zero; stopped: released, so that the other replica follows at once
"""

import asyncio
import os
import socket
import uuid
from collections.abc import Sequence

import grpc

from onlinerlhf.runtime import config as configs
from onlinerlhf.runtime import logs, serving, tracing
from onlinerlhf.runtime.health import Health
from onlinerlhf.scaler import metrics
from onlinerlhf.scaler.config import ScalerConfig
from onlinerlhf.scaler.controller import Controller
from onlinerlhf.scaler.kube import Kube
from onlinerlhf.scaler.leader import Leader
from onlinerlhf.scaler.reading import Signals
from onlinerlhf.scaler.turn import Turns


class Scaler:
    """One replica: a candidate, and once it is elected, the controller."""

    def __init__(self, kube: Kube, signals: Signals, config: ScalerConfig, health: Health, *, identity: str) -> None:
        self._leader = Leader(kube, config, identity=identity)
        turns = Turns(
            kube,
            signals,
            health=health,
            identity=identity,
            may_act_seconds=lambda: self._leader.remaining_seconds,
        )
        self._controller = Controller(kube, turns, health=health, poll_seconds=config.poll_seconds)

    async def run(self, stop: asyncio.Event) -> None:
        """Wait for the lease, act while it is held, let go of it. Raises LeaseLost."""
        metrics.LEADER.set(0)
        if not await self._leader.acquire(stop):
            return
        metrics.LEADER.set(1)
        acted = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._leader.keep(acted), name="lease")
                await self._controller.run(stop)
                acted.set()
        finally:
            metrics.LEADER.set(0)
        # After the last write, never before it.
        await self._leader.release()


def identity() -> str:
    """Of this process: a container that was restarted in its pod is another candidate."""
    return f"{os.environ.get('HOSTNAME') or socket.gethostname()}_{uuid.uuid4().hex[:12]}"


async def run() -> None:
    """Read the settings, compose the room, serve and work until told to stop."""
    from onlinerlhf.scaler.signals import Signals as RunSignals

    run_config, config = configs.load("scaler", ScalerConfig)
    logs.setup("scaler", level=run_config.log_level)
    tracing.setup("scaler", run_id=run_config.id)
    health = Health("scaler")

    def register(_: grpc.aio.Server) -> Sequence[str]:
        return []

    async with await Kube.connect(config.kubeconfig, namespace=config.namespace) as kube:
        signals = RunSignals(run_config, config)
        try:
            scaler = Scaler(kube, signals, config, health, identity=identity())
            await serving.run_service(
                "scaler", config, health=health, register=register, background={"scaler": scaler.run}
            )
        finally:
            await signals.close()
