"""Offers the versions of one weight line: writes them off the event loop and wakes who waits for a newer one."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from torch import Tensor

from onlinerlhf.core.errors import NotFound, WaitTimeout
from onlinerlhf.core.weights import Manifest
from onlinerlhf.learner.versions import StoredVersion, VersionStore, delta

Weights = Callable[[], Mapping[str, Tensor]]
"""Gathers named weights; called off the event loop."""


class Publisher:
    """What the learner's loop publishes a line through and the weight service answers from."""

    def __init__(self, store: VersionStore) -> None:
        self._store = store
        self._published = asyncio.Condition()
        self._closing = False

    async def load(self) -> None:
        """Offer what an earlier process published."""
        await asyncio.to_thread(self._store.load)

    def newest_version(self) -> int:
        """The highest number that was ever written here; 0: none."""
        return self._store.newest_number()

    async def offers(self, weights: Weights, version: int) -> bool:
        """Whether this is the newest version and has exactly these weights."""
        return await asyncio.to_thread(lambda: self._store.holds(weights(), version))

    async def publish(self, weights: Weights, version: int) -> Manifest:
        """Write and offer a new version. Raises NonFiniteWeights, WeightsRefused (number taken) and OSError."""
        manifest = await asyncio.to_thread(lambda: self._store.save(weights(), version))
        async with self._published:
            self._published.notify_all()
        return manifest

    async def newer_than(self, have_version: int, *, wait_seconds: float, full: bool = False) -> Manifest:
        """The newest version's manifest as soon as it is newer than `have_version`, or after the wait whatever it is.

        A delta where the caller's version is still kept, unless `full`. Raises WaitTimeout when nothing has been
        published by then.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_seconds), self._published:
                await self._published.wait_for(lambda: self._closing or self._newest_number() > have_version)
        newest = self._store.newest
        if newest is None:
            raise WaitTimeout(f"no version was published within {wait_seconds:.1f} s")
        if full or have_version == newest.version:
            return newest
        try:
            return delta(newest, self._store.get(have_version).manifest)
        except NotFound:
            return newest

    async def close(self) -> None:
        """End the waits when the service drains, so that long polls do not hold it up."""
        self._closing = True
        async with self._published:
            self._published.notify_all()

    def get(self, version: int) -> StoredVersion:
        """Raises NotFound for a version that is not kept (any more)."""
        return self._store.get(version)

    def _newest_number(self) -> int:
        newest = self._store.newest
        return newest.version if newest else 0
