"""One of the scalers acts: a Lease says which, and losing it ends the process.

follower ──the holder let go, or its record stood still for a lease──► leader ──stop──► released: the other takes it
                                                                          └ not renewed in renew_seconds ──► LeaseLost

Nobody's clock but this process's own monotone one is read: a record is old when *we* have seen it unchanged for as long
as it says, whatever times it carries. The holder stops acting after renew_seconds, the others wait lease_seconds; the
difference is what clocks of unequal speed and a last call on its way may use up.
"""

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from onlinerlhf.core.errors import AlreadyExists, NotFound, OnlineRLHFError, StartupError
from onlinerlhf.runtime.tasks import set_within
from onlinerlhf.scaler.config import ScalerConfig
from onlinerlhf.scaler.kinds import LEASE
from onlinerlhf.scaler.kube import Json, Kube
from onlinerlhf.scaler.kube_errors import kind_of, retry_after

log = logging.getLogger(__name__)

JITTER: Final = 0.2
RELEASED_SECONDS: Final = 1
"""Duration of a lease that nobody holds; the API refuses 0."""


class LeaseLost(StartupError):
    """Another scaler may act from now on: this process must end."""


@dataclass(slots=True)
class _Observed:
    """The Lease as last read, and when it was first seen so."""

    lease: Json = field(default_factory=dict)
    record: tuple[Any, ...] = ()
    since: float = 0.0


class Leader:
    """A candidate for the Lease."""

    def __init__(
        self, kube: Kube, config: ScalerConfig, *, identity: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """identity: unique to this process, not only to its pod; a restarted container is another candidate."""
        self._kube = kube
        self._config = config
        self._identity = identity
        self._clock = clock
        self._seen = _Observed()
        self._renewed: float | None = None

    @property
    def remaining_seconds(self) -> float:
        """For how long this process may still act, should no renewal succeed. 0: it may not."""
        if self._renewed is None:
            return 0.0
        return max(self._renewed + self._config.renew_seconds - self._clock(), 0.0)

    async def acquire(self, stop: asyncio.Event) -> bool:
        """Wait until this process leads. False: it was told to stop first."""
        self._renewed = None
        log.info("follows", extra={"lease": self._config.lease_name, "identity": self._identity})
        while not stop.is_set():
            pause = self._config.retry_seconds
            try:
                if await self._try():
                    log.info("leads", extra={"lease": self._config.lease_name, "identity": self._identity})
                    return True
            except OnlineRLHFError as error:
                log.warning("cannot try for the lease", extra={"kind": kind_of(error), "reason": str(error)})
                pause = max(pause, retry_after(error) or 0.0)
            await set_within(stop, pause * random.uniform(1.0, 1.0 + JITTER))
        return False

    async def keep(self, stop: asyncio.Event) -> None:
        """Renew until told to stop. Raises LeaseLost."""
        pause = self._config.retry_seconds
        while not await set_within(stop, min(pause * random.uniform(1.0 - JITTER, 1.0), self.remaining_seconds)):
            pause, remaining = self._config.retry_seconds, self.remaining_seconds
            if remaining == 0:
                self._lose(f"it was not renewed within {self._config.renew_seconds:g} s")
            try:
                # No call may outlast the right to act.
                async with asyncio.timeout(remaining):
                    if not await self._try():
                        self._lose(f"{self._holder() or 'nobody'} holds it")
            except TimeoutError:
                continue
            except OnlineRLHFError as error:
                if isinstance(error, LeaseLost):
                    raise
                log.warning(
                    "lease not renewed",
                    extra={"kind": kind_of(error), "reason": str(error), "left_seconds": round(remaining, 1)},
                )
                # Asked to wait, it does; but it leaves itself time to try again.
                pause = max(pause, min(retry_after(error) or 0.0, self.remaining_seconds / 2))

    async def release(self) -> None:
        """Let go, so that the other need not wait. The controller must have stopped."""
        if self._renewed is None or self._holder() != self._identity:
            return
        remaining, self._renewed = self.remaining_seconds, None
        if remaining == 0:
            return
        spec = self._record() | {"holderIdentity": "", "leaseDurationSeconds": RELEASED_SECONDS}
        try:
            await self._kube.replace(LEASE, {**self._seen.lease, "spec": spec}, timeout_seconds=remaining)
            log.info("released the lease", extra={"lease": self._config.lease_name})
        except OnlineRLHFError as error:
            log.warning("lease not released: it runs out", extra={"kind": kind_of(error), "reason": str(error)})

    async def _try(self) -> bool:
        """Read the Lease, and take or renew it where that is ours to do."""
        started = self._clock()
        try:
            self._observe(
                await self._kube.get(LEASE, self._config.lease_name, timeout_seconds=self._config.renew_seconds)
            )
        except NotFound:
            return await self._create(started)
        if self._holder() not in ("", self._identity) and not self._expired():
            return False
        if self._holder() != self._identity and self._renewed is not None:
            # It was ours and another had it meanwhile: whatever is to be had now, this process has lost it.
            return False
        lease = {**self._seen.lease, "spec": self._record()}
        self._observe(await self._kube.replace(LEASE, lease, timeout_seconds=self._config.renew_seconds))
        # Counted from before the call: that is the latest that the others can count from.
        self._renewed = started
        return True

    async def _create(self, started: float) -> bool:
        if self._renewed is not None:
            # Somebody deleted it: another candidate may have made and lost one since.
            return False
        body = {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": self._config.lease_name},
            "spec": self._record(),
        }
        try:
            self._observe(await self._kube.create(LEASE, body, timeout_seconds=self._config.renew_seconds))
        except AlreadyExists:
            return False
        self._renewed = started
        return True

    def _observe(self, lease: Json) -> None:
        spec = lease.get("spec") or {}
        record = (spec.get("holderIdentity"), spec.get("renewTime"), spec.get("leaseTransitions"))
        if record != self._seen.record:
            self._seen.record, self._seen.since = record, self._clock()
        self._seen.lease = lease

    def _holder(self) -> str:
        return str((self._seen.lease.get("spec") or {}).get("holderIdentity") or "")

    def _expired(self) -> bool:
        """Whether the record has stood still for as long as its holder asked for, as seen from here."""
        seconds = (self._seen.lease.get("spec") or {}).get("leaseDurationSeconds") or self._config.lease_seconds
        return self._clock() - self._seen.since > float(seconds)

    def _record(self) -> Json:
        old = self._seen.lease.get("spec") or {}
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        mine = self._holder() == self._identity
        transitions = int(old.get("leaseTransitions") or 0) + (0 if mine or not self._seen.lease else 1)
        return {
            "holderIdentity": self._identity,
            # Whole seconds only; the longer is the safe side.
            "leaseDurationSeconds": math.ceil(self._config.lease_seconds),
            "acquireTime": old.get("acquireTime", now) if mine else now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }

    def _lose(self, why: str) -> None:
        self._renewed = None
        raise LeaseLost(f"lost the lease {self._config.lease_name}: {why}")
