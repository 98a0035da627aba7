"""Runs a room: a gRPC server with health, reflection and diagnostics, its background tasks, and a graceful end.

SIGTERM -> health says not serving -> background tasks stop reading and finish what they hold (drain_seconds)
        -> the server takes no more calls and finishes those in flight (what is left of drain_seconds)
        -> the health port, which answered all the while, goes too -> return
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final, NoReturn, TypeAlias

from prometheus_client import start_http_server

from onlinerlhf.core.errors import OnlineRLHFError, StartupError
from onlinerlhf.runtime import metrics
from onlinerlhf.runtime.config import ServiceConfig
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.health_service import HealthServicer
from onlinerlhf.runtime.listening import Register, health_server, room_server
from onlinerlhf.runtime.statuses import status_of
from onlinerlhf.runtime.tasks import end, set_within

__all__ = ["Background", "Register", "main", "run_service", "status_of"]

log = logging.getLogger(__name__)

Background: TypeAlias = Callable[[asyncio.Event], Awaitable[None]]
"""Gets `stop`; returns when it has drained. Raises: it is restarted, later each time."""

MIN_BACKOFF_SECONDS: Final = 1.0
MAX_BACKOFF_SECONDS: Final = 30.0
MIN_GRACE_SECONDS: Final = 1.0
"""For calls in flight, where background tasks used the drain time up."""


async def run_service(
    room: str,
    config: ServiceConfig,
    *,
    health: Health,
    register: Register,
    background: Mapping[str, Background] = {},
) -> None:
    """Serve until SIGTERM or SIGINT. Raises StartupError where that cannot begin or go on."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    answers = HealthServicer(health)
    with _metrics_server(config), _signals(stop, health):
        async with health_server(config, answers), room_server(config, health, answers, register) as server:
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [
                        group.create_task(_keep_running(name, task, stop, health), name=f"{room} {name}")
                        for name, task in background.items()
                    ]
                    await stop.wait()
                    deadline = loop.time() + config.drain_seconds
                    await _drain(tasks, config.drain_seconds)
                    await server.stop(max(deadline - loop.time(), MIN_GRACE_SECONDS))
            except* StartupError as group_error:
                failure = _first(group_error)
                raise failure from failure.__cause__
    log.info("stopped")


def main(room: str, compose: Callable[[], Awaitable[None]]) -> NoReturn:
    """Run a room's composition root as a process: exit 0 after a drain, 1 with one line why it cannot run."""

    async def run() -> None:
        await compose()

    # gRPC would write a line of its own, which is no JSON, each time that a peer ends a connection.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # Until `run_service` takes signals: to the first process of a container an unhandled one does nothing at all.
    signal.signal(signal.SIGTERM, _leave)
    try:
        asyncio.run(run())
    except OnlineRLHFError as error:
        # Libraries' messages span lines; a supervisor shows one.
        print(f"onlinerlhf {room}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """Nothing was begun."""
    del number, frame
    sys.exit(0)


async def _keep_running(name: str, task: Background, stop: asyncio.Event, health: Health) -> None:
    loop = asyncio.get_running_loop()
    backoff_seconds = MIN_BACKOFF_SECONDS
    while True:
        health.set(name, ok=True)
        started = loop.time()
        try:
            await task(stop)
        except Exception as error:
            fatal = _startup_error(error)
            if fatal is not None:
                # The others end by themselves, should a cancellation not reach them.
                stop.set()
                raise fatal from fatal.__cause__
            log.exception("background task failed", extra={"task": name, "restart_in_seconds": backoff_seconds})
            health.set(name, ok=False, reason=f"failed ({type(error).__name__}), is restarted")
            metrics.BACKGROUND_RESTARTS.labels(name).inc()
        else:
            return
        if loop.time() - started > MAX_BACKOFF_SECONDS:
            backoff_seconds = MIN_BACKOFF_SECONDS
        if await set_within(stop, backoff_seconds):
            return
        backoff_seconds = min(2 * backoff_seconds, MAX_BACKOFF_SECONDS)


async def _drain(tasks: Sequence[asyncio.Task[None]], seconds: float) -> None:
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=seconds)
    for task in late:
        log.warning("not drained in time", extra={"task": task.get_name(), "drain_seconds": seconds})
    await end(late)


@contextmanager
def _signals(stop: asyncio.Event, health: Health) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def begin_drain() -> None:
        health.begin_drain()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, begin_drain)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@contextmanager
def _metrics_server(config: ServiceConfig) -> Iterator[None]:
    if config.metrics_port == 0:
        yield
        return
    host = "127.0.0.1" if config.listen.startswith("unix") else config.listen.rpartition(":")[0].strip("[]")
    try:
        server, thread = start_http_server(config.metrics_port, addr=host)
    except OSError as error:
        raise StartupError(f"cannot serve metrics on {host}:{config.metrics_port}: {error.strerror}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def _startup_error(error: Exception) -> StartupError | None:
    """The error itself, or the first inside what a task group made of it."""
    if isinstance(error, StartupError):
        return error
    found = error.subgroup(StartupError) if isinstance(error, ExceptionGroup) else None
    return _first(found) if found is not None else None


def _first(group: BaseExceptionGroup[StartupError]) -> StartupError:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
