"""`onlinerlhf scale rollout N`: ask the platform that is up for N rollout workers, and wait until they are there."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc
from rich.console import Console

from onlinerlhf.core.errors import ConfigError, NotFound, OnlineRLHFError, StartupError, Unavailable, WaitTimeout
from onlinerlhf.local import desired, probes
from onlinerlhf.local import endpoints as endpoint_files
from onlinerlhf.local.child import ChildState
from onlinerlhf.local.desired import Wish
from onlinerlhf.local.endpoints import Endpoints, ProcessEntry
from onlinerlhf.local.platform import check_num_workers

_LOOK_SECONDS = 0.5
_STANDS = "the wish stands; `onlinerlhf status` shows what becomes of it"
_NO_WORKERS = "with 0 rollout workers users get no answers, and nothing is sampled"


def scale(endpoints: Endpoints, num_workers: int, *, wait: bool, timeout_seconds: float) -> None:
    """Write the wish; with `wait`, return when it is fulfilled. Raises WaitTimeout, which says what was waited for."""
    console = Console()
    check_num_workers(num_workers, endpoints.max_workers)
    wish = desired.write(Path(endpoints.run_dir), num_workers)
    if num_workers == 0:
        console.print(_NO_WORKERS, highlight=False, soft_wrap=True)
    if not wait:
        console.print(f"{_workers(num_workers)} asked for; `onlinerlhf status` shows them", highlight=False)
        return
    try:
        with console.status("asking for rollout workers") as progress:
            show = progress.update if console.is_terminal else _Lines(console)
            asyncio.run(wait_fulfilled(Path(endpoints.run_dir), wish, timeout_seconds=timeout_seconds, show=show))
    except KeyboardInterrupt:
        raise OnlineRLHFError(f"waits no longer; {_STANDS}") from None
    console.print(f"{_workers(num_workers)} ready" if num_workers else "no rollout worker is left", highlight=False)


async def wait_fulfilled(run_dir: Path, wish: Wish, *, timeout_seconds: float, show: Callable[[str], None]) -> None:
    """Until exactly as many workers as wished for are there, all of them ready."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    while waits_for := await _waits_for(run_dir, wish):
        if loop.time() > deadline:
            raise WaitTimeout(f"waited {timeout_seconds:.0f} s for {waits_for}; {_STANDS}")
        show(f"waiting for {waits_for}")
        await asyncio.sleep(_LOOK_SECONDS)


async def _waits_for(run_dir: Path, wish: Wish) -> str:
    """What the wish is still without; empty: nothing. Raises where it will not be fulfilled."""
    try:
        found = endpoint_files.read(run_dir)
        newest = desired.read(run_dir)
    except (NotFound, ConfigError) as error:
        raise Unavailable(f"the platform ended, or lost the wish: {error}") from None
    if not found.is_running:
        raise Unavailable(f"run {found.run_id} is not running any more")
    if newest.id != wish.id:
        raise Unavailable(f"a newer wish, for {_workers(newest.num_workers)}, took this one's place")
    if found.wish != wish.id:
        return "`onlinerlhf up` to take up the wish; while it starts, it does not"
    for worker in found.workers:
        if worker.state == ChildState.FAILED:
            raise StartupError(
                f"{worker.name} {worker.reason}; the others go on, `onlinerlhf scale rollout {wish.num_workers}` "
                "tries again"
            )
    waits = [each for each in await asyncio.gather(*map(_worker_waits_for, found.workers)) if each]
    num_missing = wish.num_workers - sum(worker.state != ChildState.DRAINING for worker in found.workers)
    if num_missing > 0:
        waits.append(f"{_workers(num_missing)} to be started")
    elif num_missing < 0:
        waits.append(f"{_workers(-num_missing)} to be told to drain")
    return "; ".join(waits)


async def _worker_waits_for(worker: ProcessEntry) -> str:
    if worker.state == ChildState.READY:
        return ""
    if worker.state == ChildState.STARTING:
        return f"{worker.name}: {await probes.room_waits_for(worker.address) or 'being found ready'}"
    if worker.state == ChildState.DRAINING:
        return f"{worker.name} to drain{await _in_hand(worker)}"
    return f"{worker.name}: {worker.state}, {worker.reason}"


async def _in_hand(worker: ProcessEntry) -> str:
    try:
        async with probes.fresh_channel(worker.address) as channel:
            return f" ({(await probes.ask_rollout(channel, worker.name)).num_in_flight} requests in its engine)"
    except grpc.aio.AioRpcError:
        return ""


def _workers(count: int) -> str:
    return f"{count} rollout worker{'' if count == 1 else 's'}"


class _Lines:
    """Progress where it is not a terminal: a line a change."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""

    def __call__(self, line: str) -> None:
        if line != self._last:
            self._last = line
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)
