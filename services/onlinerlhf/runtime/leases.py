"""What a consumer holds, and the heartbeat that keeps it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from onlinerlhf.core.samples import Stage
from onlinerlhf.runtime import metrics, stream_scripts
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Patience
from onlinerlhf.runtime.tasks import end

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A sample in hand."""

    stage: Stage
    entry_id: str
    sample_id: str
    payload: bytes
    attempt: int
    """1 at the first delivery."""


class Leases:
    """The entries one consumer of a stage holds. A lease not renewed for `lease_seconds` is free for others."""

    def __init__(
        self, redis: Redis, keys: RunKeys, stage: Stage, *, name: str, patience: Patience, lease_seconds: float
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._stage = stage
        self._name = name
        self._patience = patience
        self.lease_seconds = lease_seconds
        self.held: dict[str, Delivery] = {}
        """By entry id."""
        self._set_aside: dict[str, float] = {}
        """Entries left to run out of their lease, with the time of that."""
        self._settling: set[str] = set()
        self._heartbeat: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Forget what was held, and renew from now on."""
        self.held.clear()
        self._set_aside.clear()
        self._heartbeat = asyncio.create_task(self._renew_forever(), name=f"{self._stage} leases of {self._name}")

    async def stop(self) -> None:
        """Renew no more."""
        if self._heartbeat is not None:
            heartbeat, self._heartbeat = self._heartbeat, None
            await end([heartbeat])

    def hold(self, delivery: Delivery) -> None:
        """From now on it is renewed."""
        self.held[delivery.entry_id] = delivery
        self._set_aside.pop(delivery.entry_id, None)

    def set_aside(self, entry_id: str) -> None:
        """Let its lease run out."""
        if self.held.pop(entry_id, None) is not None:
            self._set_aside[entry_id] = asyncio.get_running_loop().time() + self.lease_seconds

    def still_set_aside(self) -> list[str]:
        """Entries whose lease has not run out yet."""
        now = asyncio.get_running_loop().time()
        self._set_aside = {entry: until for entry, until in self._set_aside.items() if until > now}
        return list(self._set_aside)

    @contextmanager
    def settling(self, entry_ids: Iterable[str]) -> Iterator[None]:
        """Held and renewed until the block succeeds; gone from the list meanwhile, they are not lost but done."""
        entries = set(entry_ids)
        self._settling |= entries
        try:
            yield
            for entry in entries:
                self.held.pop(entry, None)
                self._set_aside.pop(entry, None)
        finally:
            self._settling -= entries

    async def in_group(self, call: Callable[[], Awaitable[T]]) -> T:
        """Run a script that needs the group; make the group where Redis does not have it (any more)."""
        try:
            return await call()
        except ResponseError as error:
            if "NOGROUP" not in str(error) and "no such key" not in str(error):
                raise
            await stream_scripts.ENSURE_GROUP.run(self._redis, [self._keys.stream(self._stage)], [self._keys.group])
            return await call()

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(self.lease_seconds / 3)
            try:
                await self.renew()
            except Exception:
                # The loop's edge: without the loop every lease would be lost.
                log.exception("leases not renewed", extra={"stage": self._stage})

    async def renew(self) -> None:
        """Renew all leases once; drop from `held` those that are another's now."""
        # With nothing held too: health learns within a third of a lease that Redis is away.
        lost = await self._patience(f"renew the leases in [{self._stage}]", partial(self.in_group, self._renew))
        for entry in lost:
            delivery = None if entry in self._settling else self.held.pop(entry, None)
            if delivery is not None:
                metrics.LEASES_LOST.labels(self._stage).inc()
                log.warning("lease lost", extra={"stage": self._stage, "sample_id": delivery.sample_id})
        metrics.HELD.labels(self._stage).set(len(self.held))

    async def _renew(self) -> list[str]:
        stream = self._keys.stream(self._stage)
        arguments = [self._keys.group, self._name, *self.held]
        lost: Any = await stream_scripts.RENEW.run(self._redis, [stream], arguments)
        return [entry.decode() for entry in lost]
