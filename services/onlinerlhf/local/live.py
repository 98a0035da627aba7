"""The live view of `onlinerlhf up`: a picture that refreshes on a terminal, a line every few seconds elsewhere."""

import asyncio
from collections.abc import Callable
from datetime import datetime

from rich.console import Console
from rich.live import Live

from onlinerlhf.local.monitor import Monitor
from onlinerlhf.local.status import as_line, as_table

TERMINAL_SECONDS = 1.0
PLAIN_SECONDS = 5.0


async def watch(monitor: Monitor, console: Console, *, plain: bool = False) -> None:
    """Show the platform until cancelled."""
    if console.is_terminal and not plain:
        await _picture(monitor, console)
    else:
        await _lines(monitor, lambda line: console.print(line, soft_wrap=True, highlight=False, markup=False))


async def _picture(monitor: Monitor, console: Console) -> None:
    first = await monitor.snapshot()
    with Live(as_table(first), console=console, auto_refresh=False) as live:
        while True:
            await asyncio.sleep(TERMINAL_SECONDS)
            live.update(as_table(await monitor.snapshot()), refresh=True)


async def _lines(monitor: Monitor, write: Callable[[str], None]) -> None:
    while True:
        snapshot = await monitor.snapshot()
        write(f"{datetime.now().astimezone():%H:%M:%S} {as_line(snapshot)}")
        await asyncio.sleep(PLAIN_SECONDS)
