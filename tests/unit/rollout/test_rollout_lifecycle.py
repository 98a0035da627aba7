"""A lost engine ends the service; the parts that need it begin when it has started."""

import asyncio
import multiprocessing
import signal
import threading
import time

import pytest

from onlinerlhf.core.errors import StartupError
from onlinerlhf.rollout.lifecycle import EngineKeeper, kill_children
from onlinerlhf.runtime.health import Health


class FakeEngine:
    def __init__(self) -> None:
        self.lost = ""
        self.starts = 0

    async def start(self) -> None:
        self.starts += 1

    def trouble(self) -> str:
        return self.lost


async def test_an_engine_that_is_lost_ends_the_service_and_shows_in_health() -> None:
    engine, health = FakeEngine(), Health("rollout")
    keeper = EngineKeeper(engine, health)
    assert not health.ready()
    running = asyncio.ensure_future(keeper.run(asyncio.Event()))
    await health.wait_ready(1)
    engine.lost = "the vLLM engine process died"

    with pytest.raises(StartupError, match="the vLLM engine process died"):
        await running
    assert not health.ready()


async def test_what_needs_the_engine_begins_once_it_has_started() -> None:
    engine, stop = FakeEngine(), asyncio.Event()
    keeper = EngineKeeper(engine, Health("rollout"))
    begun: list[int] = []

    async def background(stop: asyncio.Event) -> None:
        begun.append(engine.starts)
        await stop.wait()

    waiting = asyncio.ensure_future(keeper.once_started(background)(stop))
    await asyncio.sleep(0)
    assert begun == []
    keeping = asyncio.ensure_future(keeper.run(stop))
    async with asyncio.timeout(5):
        while not begun:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        stop.set()
        await waiting
        await keeping
    assert begun == [1]


async def test_a_service_that_stops_first_begins_nothing() -> None:
    stop = asyncio.Event()
    stop.set()

    async def background(stop: asyncio.Event) -> None:
        raise AssertionError

    await EngineKeeper(FakeEngine(), Health("rollout")).once_started(background)(stop)


class SlowEngine(FakeEngine):
    """Starts for ever on a thread, until the process that it waits for is killed."""

    def __init__(self) -> None:
        super().__init__()
        self.kills = 0
        self._process = threading.Event()

    async def start(self) -> None:
        await asyncio.to_thread(self._process.wait)
        raise StartupError("vLLM cannot start: its process is gone")

    def kill(self) -> None:
        self.kills += 1
        if self.kills == 2:  # at the first try it was not there yet
            self._process.set()


async def test_told_to_stop_while_the_engine_starts_its_processes_are_killed_and_the_room_ends_quietly() -> None:
    engine, stop = SlowEngine(), asyncio.Event()
    keeper = EngineKeeper(engine, Health("rollout"), kill_processes=engine.kill)
    keeping = asyncio.ensure_future(keeper.run(stop))
    await asyncio.sleep(0.05)
    assert engine.kills == 0
    stop.set()
    async with asyncio.timeout(3):
        await keeping
    assert engine.kills == 2


def test_what_multiprocessing_has_started_is_killed() -> None:
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    child.start()
    kill_children()
    child.join(10)
    assert child.exitcode == -signal.SIGKILL
