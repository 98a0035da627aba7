"""Starts the engine and watches over it: a dead engine is never taken for a quiet one.

Told to stop while the engine starts, which may take minutes, the start is ended with its processes: there is nothing in
hand to finish.
"""

import asyncio
import logging
import multiprocessing
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from onlinerlhf.core.errors import StartupError
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.tasks import end, set_within

log = logging.getLogger(__name__)

_WATCH_SECONDS = 0.25
_COMPONENT = "engine"


class WatchedEngine(Protocol):
    """What can be started and can be lost."""

    async def start(self) -> None:
        """Raises StartupError."""

    def trouble(self) -> str:
        """Why it can do nothing any more; empty while it can."""


def kill_children() -> None:
    """SIGKILL what this process has started by multiprocessing: vLLM's processes."""
    for child in multiprocessing.active_children():
        child.kill()


class EngineKeeper:
    """Ends the service when the engine is lost: only a new process has a new engine."""

    def __init__(
        self, engine: WatchedEngine, health: Health, *, kill_processes: Callable[[], None] = kill_children
    ) -> None:
        self._engine = engine
        self._health = health
        self._kill_processes = kill_processes
        self._started = asyncio.Event()
        health.set(_COMPONENT, ok=False, reason="vLLM is starting")

    async def run(self, stop: asyncio.Event) -> None:
        """Start, then watch until `stop`. Raises StartupError when the engine does not start or is lost."""
        if not self._started.is_set():
            if not await self._start(stop):
                return
            self._health.set(_COMPONENT, ok=True)
            self._started.set()
        while not stop.is_set():
            if trouble := self._engine.trouble():
                self._health.set(_COMPONENT, ok=False, reason=trouble)
                raise StartupError(f"{trouble}; this process cannot go on without it")
            await set_within(stop, _WATCH_SECONDS)

    async def _start(self, stop: asyncio.Event) -> bool:
        """False: told to stop before the engine was there; its start is over."""
        starting = asyncio.create_task(self._engine.start(), name="start the engine")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                await starting
                return True
            log.info("the engine's start is given up")
            # vLLM starts on a thread, which nothing can cancel; but it ends when the processes it waits for are gone.
            # They may be yet to come.
            while not starting.done():
                self._kill_processes()
                await asyncio.wait((starting,), timeout=_WATCH_SECONDS)
            with suppress(StartupError):
                await starting
            return False
        finally:
            await end([starting, stopping])

    def once_started(
        self, background: Callable[[asyncio.Event], Awaitable[None]]
    ) -> Callable[[asyncio.Event], Awaitable[None]]:
        """A background that begins when the engine has started, unless the service stops first."""

        async def run(stop: asyncio.Event) -> None:
            while not (self._started.is_set() or stop.is_set()):
                await set_within(stop, _WATCH_SECONDS)
            if not stop.is_set():
                await background(stop)

        return run
