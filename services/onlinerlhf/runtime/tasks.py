"""Ending tasks for good, leaving work that is no longer wanted, and resting until an event."""

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any, Final, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

ASK_AGAIN_SECONDS: Final = 0.5
GIVE_UP_SECONDS: Final = 10.0


async def end(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel, and wait until they are done; after GIVE_UP_SECONDS, say which are not.

    One request is not enough: before Python 3.12 `asyncio.wait_for` swallows a cancellation that arrives together with
    the result, and the Redis client sends every command through it.
    """
    pending = set(tasks)
    deadline = asyncio.get_running_loop().time() + GIVE_UP_SECONDS
    while pending and asyncio.get_running_loop().time() < deadline:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=ASK_AGAIN_SECONDS)
    for task in pending:
        log.error("task does not end", extra={"task": task.get_name(), "waited_seconds": GIVE_UP_SECONDS})


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event was set within that time; returns as soon as it is."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Its result; None where `stop` came first. For work that may be left at any point, such as a question."""
    asking = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((asking, stopping), return_when=asyncio.FIRST_COMPLETED)
        return asking.result() if asking.done() else None
    finally:
        await end([asking, stopping])
