"""Act on a stream's items some at a time and give the results in the stream's order."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import Any, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


async def in_order(
    source: AsyncIterable[ItemT], act: Callable[[ItemT], Awaitable[ResultT]], *, num_at_once: int
) -> AsyncGenerator[ResultT, None]:
    """Results of `act`, first come first out, with at most `num_at_once` in work. Reading waits while that many are.

    Close it (`contextlib.aclosing`) where it is not read to its end.
    """
    room = asyncio.Semaphore(num_at_once)
    tasks: list[asyncio.Task[Any]] = []
    results: asyncio.Queue[asyncio.Task[ResultT] | None] = asyncio.Queue()

    async def one(item: ItemT) -> ResultT:
        return await act(item)

    async def read() -> None:
        try:
            async for item in source:
                await room.acquire()
                task = asyncio.create_task(one(item), name="act on an item")
                tasks.append(task)
                results.put_nowait(task)
        finally:
            results.put_nowait(None)

    # A TaskGroup would turn the end of a generator that is closed early into an exception group.
    reader = asyncio.create_task(read(), name="read items")
    tasks.append(reader)
    try:
        while (task := await results.get()) is not None:
            result = await task
            tasks.remove(task)
            room.release()
            yield result
        await reader
    finally:
        for left in tasks:
            left.cancel()
        await asyncio.wait(tasks)
