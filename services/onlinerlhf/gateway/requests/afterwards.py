"""What is done when the client already has its answer: accounts, receipts, records. It outlives the call."""

import asyncio
import logging
from collections.abc import Coroutine

from onlinerlhf.core.errors import OnlineRLHFError
from onlinerlhf.runtime.logs import describe_exception

log = logging.getLogger(__name__)


class Afterwards:
    """Runs small jobs beside the calls that left them. A failed one is logged by kind and forgotten."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def do(self, what: str, job: Coroutine[object, object, None]) -> None:
        """Begin a job; `what` names it in logs."""
        task = asyncio.create_task(self._guarded(what, job), name=what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`, then until what was begun is done; whoever drains bounds that."""
        await stop.wait()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _guarded(self, what: str, job: Coroutine[object, object, None]) -> None:
        try:
            await job
        except OnlineRLHFError as error:
            log.warning("not done afterwards", extra={"what": what, "error": type(error).__name__})
        except Exception as error:  # noqa: BLE001 - the edge of every job
            # It may quote the call, whatever its class.
            told = describe_exception(error, safe=(OnlineRLHFError,))
            log.error("failed afterwards", extra={"what": what, "exception": told})
