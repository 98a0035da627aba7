import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

from onlinerlhf.core.errors import Unavailable
from onlinerlhf.gateway.admission.feeder import Feeder
from onlinerlhf.gateway.admission.pool import Fed, Pool
from onlinerlhf.runtime.redis import Patience

T = TypeVar("T")


class ScriptedPool:
    """Answers each look in turn, then finds nothing and tells so."""

    def __init__(self, *looks: Fed | Exception) -> None:
        self._looks = list(looks)
        self.num_looks = 0
        self.is_idle = asyncio.Event()

    async def feed(self) -> Fed:
        self.num_looks += 1
        if not self._looks:
            self.is_idle.set()
            return fed(0)
        look = self._looks.pop(0)
        if isinstance(look, Exception):
            raise look
        return look


def fed(num_new: int, *, num_skipped: int = 0, is_full: bool = False) -> Fed:
    return Fed(
        num_new=num_new,
        num_reused=0,
        num_skipped=num_skipped,
        num_waiting_new=0,
        num_waiting_reuse=0,
        is_full=is_full,
    )


async def no_patience(what: str, call: Callable[[], Awaitable[T]], *, give_up_seconds: float | None = None) -> T:
    return await call()


async def run_until_idle(pool: ScriptedPool, *, poll_seconds: float = 3600.0) -> None:
    stop, on_admitted = asyncio.Event(), asyncio.Event()
    feeder = Feeder(cast(Pool, pool), cast(Patience, no_patience), poll_seconds=poll_seconds, on_admitted=on_admitted)
    running = asyncio.create_task(feeder.run(stop))
    async with asyncio.timeout(5):
        await pool.is_idle.wait()
        stop.set()
        on_admitted.set()
        await running


async def test_while_there_is_work_the_feeder_does_not_pause() -> None:
    pool = ScriptedPool(fed(64), fed(64), fed(3))
    await run_until_idle(pool)
    assert pool.num_looks == 4


async def test_samples_that_left_the_pool_otherwise_are_work_too() -> None:
    pool = ScriptedPool(fed(0, num_skipped=64), fed(0, num_skipped=1))
    await run_until_idle(pool)
    assert pool.num_looks == 3


async def test_an_admission_wakes_the_idle_feeder_at_once() -> None:
    pool = ScriptedPool()
    stop, on_admitted = asyncio.Event(), asyncio.Event()
    feeder = Feeder(cast(Pool, pool), cast(Patience, no_patience), poll_seconds=3600.0, on_admitted=on_admitted)
    running = asyncio.create_task(feeder.run(stop))
    async with asyncio.timeout(5):
        await pool.is_idle.wait()
        assert pool.num_looks == 1
        pool.is_idle.clear()
        on_admitted.set()
        await pool.is_idle.wait()
        assert pool.num_looks == 2
        stop.set()
        on_admitted.set()
        await running


async def test_with_prompts_full_the_feeder_looks_again_after_its_pause() -> None:
    pool = ScriptedPool(fed(0, is_full=True), fed(0, is_full=True))
    await run_until_idle(pool, poll_seconds=0.001)
    assert pool.num_looks >= 3


async def test_an_absence_that_outlasts_patience_does_not_end_the_feeder() -> None:
    pool = ScriptedPool(Unavailable("away"), fed(1))
    await run_until_idle(pool)
    assert pool.num_looks == 3
