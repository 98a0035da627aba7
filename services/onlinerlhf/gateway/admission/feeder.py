"""Keeps [prompts] topped up from the pool. Several gateways may do so at once; each move is one script."""

import asyncio

from onlinerlhf.core.errors import Unavailable
from onlinerlhf.gateway import metrics
from onlinerlhf.gateway.admission.pool import Fed, Pool
from onlinerlhf.runtime.redis import Patience
from onlinerlhf.runtime.tasks import set_within

# Patience is given up now and then only to look whether the process is to stop.
_LOOK_UP_SECONDS = 5.0


class Feeder:
    """Moves prompts while there are any and there is room; otherwise looks again a few times a second."""

    def __init__(self, pool: Pool, patience: Patience, *, poll_seconds: float, on_admitted: asyncio.Event) -> None:
        self._pool = pool
        self._patience = patience
        self._poll_seconds = poll_seconds
        self._on_admitted = on_admitted

    async def run(self, stop: asyncio.Event) -> None:
        """Feed until `stop`."""
        task = asyncio.current_task()
        # On Python 3.11 a cancellation can get lost in the Redis client; the task still counts it.
        while not stop.is_set() and not (task and task.cancelling()):
            self._on_admitted.clear()
            try:
                fed = await self._patience("feeding [prompts]", self._pool.feed, give_up_seconds=_LOOK_UP_SECONDS)
            except Unavailable:
                # Patience has said so in health and log.
                continue
            _export(fed)
            if fed.is_idle:
                # With [prompts] full, another admission is no reason to look again.
                await set_within(stop if fed.is_full else self._on_admitted, self._poll_seconds)


def _export(fed: Fed) -> None:
    metrics.FED.labels(kind="new").inc(fed.num_new)
    metrics.FED.labels(kind="reuse").inc(fed.num_reused)
    metrics.POOL_SIZE.labels(kind="new").set(fed.num_waiting_new)
    metrics.POOL_SIZE.labels(kind="reuse").set(fed.num_waiting_reuse)
