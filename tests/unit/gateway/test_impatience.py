"""How long a call waits for a Redis that says nothing."""

import asyncio
import time

import pytest

from onlinerlhf.gateway.access.impatience import Impatience


async def never() -> str:
    await asyncio.Event().wait()
    return "never"


async def answer_after(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "here"


async def test_silence_is_a_timeout_after_half_a_second_and_the_call_is_cancelled() -> None:
    started, cancelled = time.monotonic(), asyncio.Event()

    async def silent() -> None:
        try:
            await never()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(TimeoutError):
        await Impatience()(silent)
    assert 0.4 < time.monotonic() - started < 1.5
    await asyncio.wait_for(cancelled.wait(), 1)


async def test_while_others_are_answered_one_waits_for_its_turn() -> None:
    impatience = Impatience()

    async def others() -> None:
        for _ in range(12):
            await impatience(lambda: answer_after(0.05))

    async with asyncio.TaskGroup() as group:
        group.create_task(others())
        assert await impatience(lambda: answer_after(0.65)) == "here"


async def test_a_pause_of_this_process_is_not_taken_for_one_of_redis() -> None:
    async def reply() -> str:
        await asyncio.sleep(0.05)
        return "here"

    async with asyncio.TaskGroup() as group:
        asked = group.create_task(Impatience()(reply))
        await asyncio.sleep(0)
        time.sleep(0.7)  # noqa: ASYNC251 - the event loop stands still
        assert await asked == "here"


async def test_an_error_is_the_callers() -> None:
    async def fails() -> str:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        await Impatience()(fails)


async def test_thousands_at_once_on_a_busy_process_all_get_their_answers() -> None:
    impatience, one_at_a_time = Impatience(), asyncio.Lock()

    async def answer() -> int:
        async with one_at_a_time:
            await asyncio.sleep(0)
            time.sleep(0.0004)  # noqa: ASYNC251 - the event loop is busy
            return 1

    async with asyncio.timeout(20):
        assert sum(await asyncio.gather(*(impatience(answer) for _ in range(2000)))) == 2000


async def test_of_many_that_wait_for_nothing_each_is_told_so_and_a_later_one_too() -> None:
    impatience = Impatience()
    started = time.monotonic()
    results = await asyncio.gather(*(impatience(never) for _ in range(100)), return_exceptions=True)
    assert {type(result) for result in results} == {TimeoutError}
    assert time.monotonic() - started < 1.5
    with pytest.raises(TimeoutError):
        await impatience(never)
    assert await impatience(lambda: answer_after(0.3)) == "here"


async def test_a_caller_that_goes_takes_its_question_with_it() -> None:
    impatience, cancelled = Impatience(), asyncio.Event()

    async def silent() -> None:
        try:
            await never()
        finally:
            cancelled.set()

    asking = asyncio.create_task(impatience(silent))
    await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.wait_for(cancelled.wait(), 1)
