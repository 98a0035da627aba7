"""Tasks that do not want to end."""

import asyncio

from onlinerlhf.runtime.tasks import end


async def test_a_task_that_swallows_a_cancellation_is_asked_again() -> None:
    num_asked = 0

    async def deaf_once() -> None:
        nonlocal num_asked
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                num_asked += 1
                if num_asked == 2:
                    raise

    task = asyncio.create_task(deaf_once())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end([task])
    assert task.cancelled() and num_asked == 2


async def test_ending_nothing_or_what_has_ended_takes_no_time() -> None:
    done = asyncio.create_task(asyncio.sleep(0))
    await done
    async with asyncio.timeout(0.2):
        await end([])
        await end([done])
