"""Starts the engine and watches over it: a dead engine is never taken for a quiet one."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from onlinerlhf.core.errors import StartupError
from onlinerlhf.runtime.health import Health

_WATCH_SECONDS = 0.25
_COMPONENT = "engine"


class WatchedEngine(Protocol):
    """What can be started and can be lost."""

    async def start(self) -> None:
        """Raises StartupError."""

    def trouble(self) -> str:
        """Why it can do nothing any more; empty while it can."""


class EngineKeeper:
    """Ends the service when the engine is lost: only a new process has a new engine."""

    def __init__(self, engine: WatchedEngine, health: Health) -> None:
        self._engine = engine
        self._health = health
        self._started = asyncio.Event()
        health.set(_COMPONENT, ok=False, reason="vLLM is starting")

    async def run(self, stop: asyncio.Event) -> None:
        """Start, then watch until `stop`. Raises StartupError when the engine does not start or is lost."""
        if not self._started.is_set():
            await self._engine.start()
            self._health.set(_COMPONENT, ok=True)
            self._started.set()
        while not stop.is_set():
            if trouble := self._engine.trouble():
                self._health.set(_COMPONENT, ok=False, reason=trouble)
                raise StartupError(f"{trouble}; this process cannot go on without it")
            await _wait(stop, _WATCH_SECONDS)

    def once_started(
        self, background: Callable[[asyncio.Event], Awaitable[None]]
    ) -> Callable[[asyncio.Event], Awaitable[None]]:
        """A background that begins when the engine has started, unless the service stops first."""

        async def run(stop: asyncio.Event) -> None:
            while not (self._started.is_set() or stop.is_set()):
                await _wait(stop, _WATCH_SECONDS)
            if not stop.is_set():
                await background(stop)

        return run


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set, `seconds` at most."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
