"""A stream's items: taken as many as are at hand, acted on some at a time, answered in the stream's order."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import Any, TypeVar

from onlinerlhf.runtime.tasks import end

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


async def at_hand(source: AsyncIterable[ItemT], *, max_count: int) -> AsyncGenerator[list[ItemT], None]:
    """Items as they come, together with those that have come meanwhile, up to so many. Reads that far ahead.

    Close it where it is not read to its end. Raises what the source raises, after what came before.
    """
    room = asyncio.Semaphore(max_count)
    read: asyncio.Queue[ItemT | None] = asyncio.Queue()

    async def fill() -> None:
        try:
            async for item in source:
                await room.acquire()
                read.put_nowait(item)
        finally:
            read.put_nowait(None)

    filling = asyncio.create_task(fill(), name="read ahead")
    try:
        has_ended = False
        while not has_ended:
            items: list[ItemT] = []
            while len(items) < max_count and not (items and read.empty()):
                item = await read.get()
                has_ended = item is None
                if item is None:
                    break
                items.append(item)
                room.release()
            if items:
                yield items
        await filling
    finally:
        await end([filling])
