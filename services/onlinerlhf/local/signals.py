"""Ctrl-C and SIGTERM: the first one drains, the second one kills."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
OnKill = Callable[[Callable[[], None]], None]
"""Registers what kills everything at once, for whoever signals twice."""
STOPPING = (signal.SIGINT, signal.SIGTERM)


def run_until_signal(main: Callable[[OnKill], Coroutine[Any, Any, T]]) -> T | None:
    """Run `main`; on a signal it is cancelled, so that it drains on its way out, and None is returned."""
    return asyncio.run(_run(main))


async def _run(main: Callable[[OnKill], Coroutine[Any, Any, T]]) -> T | None:
    killers: list[Callable[[], None]] = []
    task = asyncio.get_running_loop().create_task(main(killers.append), name="main")
    received: list[int] = []

    def on_signal(number: int) -> None:
        received.append(number)
        if len(received) == 1:
            task.cancel()
        for kill in killers if len(received) > 1 else ():
            kill()

    loop = asyncio.get_running_loop()
    for number in STOPPING:
        loop.add_signal_handler(number, on_signal, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not received:
            raise
        return None
    finally:
        for number in STOPPING:
            loop.remove_signal_handler(number)
