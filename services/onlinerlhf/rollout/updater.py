"""The background loop that keeps a worker on the learner's newest version.

    ask (long poll) -> stage and verify while generating -> pause(keep) -> apply -> resume -> label
         └ the learner is away: ask again; what is applied goes on serving
                └ refused: nothing was touched; ask for the complete version, ever more slowly
                                        └ failed: the engine may hold half of each, so the process ends

A worker that has applied nothing yet serves nobody and takes no work.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from onlinerlhf.core.errors import MalformedRecord, NotFound, OnlineRLHFError, StartupError, WeightsRefused
from onlinerlhf.rollout import metrics
from onlinerlhf.rollout.staging import StagedVersion, Staging, WeightSource
from onlinerlhf.runtime.health import Health

log = logging.getLogger(__name__)

_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 30.0
"""Between refusals: each costs the learner a complete version."""
_LONGEST_ABSENCE_SECONDS = 2.0
"""Between questions to a learner that is away: a question is cheap."""
_NOTHING_NEW_SECONDS = 0.2
"""After an answer that is nothing new: a learner that does not hold the question must not be asked all the time."""
_COMPONENT = "weights"
_NOTHING_APPLIED = "no policy version applied yet"


class Target(Protocol):
    """What takes the weights: the engine."""

    @property
    def version(self) -> int:
        """The label."""

    async def apply(self, path: Path, version: int) -> float:
        """Switch to a staged version; seconds of pause."""


class Updater:
    """Pulls and applies versions, and knows how far behind the worker is."""

    def __init__(
        self,
        source: WeightSource,
        staging: Staging,
        target: Target,
        health: Health,
        *,
        manifest_wait_seconds: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.newest_known = 0
        self.num_applied = 0
        self.num_refused = 0
        self.pause_seconds = 0.0
        self.last_refusal = ""
        self._source = source
        self._staging = staging
        self._target = target
        self._health = health
        self._manifest_wait_seconds = manifest_wait_seconds
        self._sleep = sleep
        self._clock = clock
        self._ask_full = True
        self._failures = 0
        self._applying = asyncio.Lock()
        health.set(_COMPONENT, ok=False, reason=_NOTHING_APPLIED)

    @property
    def versions_behind(self) -> int:
        """Published versions, as far as known here, that the engine does not have yet."""
        return max(self.newest_known - self._target.version, 0)

    async def run(self, stop: asyncio.Event) -> None:
        """Pull until `stop`. An update that is being applied is finished first."""
        if self._target.version == 0:
            await asyncio.to_thread(self._staging.clear)
        async with asyncio.TaskGroup() as group:
            pulling = group.create_task(self._pull_forever(), name="pull-weights")
            await stop.wait()
            async with self._applying:
                pulling.cancel()

    async def _pull_forever(self) -> None:
        while True:
            backoff_seconds = await self._turn()
            if backoff_seconds:
                await self._sleep(backoff_seconds)

    async def _turn(self) -> float:
        """One question and what follows from it; seconds to wait before the next."""
        longest_seconds = _LONGEST_ABSENCE_SECONDS
        try:
            is_new = await self.update_once()
        except (WeightsRefused, MalformedRecord) as error:
            self._refused(error)
            longest_seconds = _LONGEST_BACKOFF_SECONDS
        except NotFound as error:
            # A newer version took its place while it was fetched.
            self._failures += 1
            log.info("version is gone", extra={"reason": str(error)})
        except StartupError:
            raise
        except OnlineRLHFError as error:
            self._failures += 1
            if self._failures == 1:
                extra = {"applied": self._target.version, "reason": str(error)}
                log.warning("the learner does not answer", extra=extra)
            if self._target.version == 0:
                self._health.set(_COMPONENT, ok=False, reason=f"{_NOTHING_APPLIED}: {error}")
        else:
            self._failures = 0
            return 0.0 if is_new else _NOTHING_NEW_SECONDS
        return min(_FIRST_BACKOFF_SECONDS * 2.0 ** min(self._failures - 1, 10), longest_seconds)

    async def update_once(self) -> bool:
        """Ask once and take what is newer. False: nothing is."""
        applied = self._target.version
        manifest = await self._source.manifest(
            have_version=applied, wait_seconds=self._manifest_wait_seconds, full=self._ask_full
        )
        if manifest.version < applied:
            raise WeightsRefused(f"version {manifest.version} is offered, older than {applied}")
        self.newest_known = max(self.newest_known, manifest.version)
        metrics.NEWEST_VERSION.set(self.newest_known)
        if manifest.version == applied:
            return False
        with metrics.STAGE_SECONDS.time():
            staged = await self._staging.stage(manifest)
        await self._apply(staged)
        return True

    async def _apply(self, staged: StagedVersion) -> None:
        async with self._applying:
            try:
                self.pause_seconds = await self._target.apply(staged.path, staged.version)
            except Exception as error:
                self._health.set(_COMPONENT, ok=False, reason=f"version {staged.version} was left half applied")
                raise StartupError(
                    f"applying version {staged.version} failed ({type(error).__name__}); this worker must start afresh"
                ) from error
            await self._staging.keep(staged)
        self.num_applied += 1
        self._ask_full = False
        self._health.set(_COMPONENT, ok=True)
        metrics.UPDATES_APPLIED.inc()
        metrics.VERSION.set(staged.version)
        metrics.PAUSE_SECONDS.observe(self.pause_seconds)
        log.info("weights applied", extra={"version": staged.version, "pause_seconds": round(self.pause_seconds, 4)})

    def _refused(self, error: WeightsRefused | MalformedRecord) -> None:
        self._failures += 1
        self._ask_full = True
        self.num_refused += 1
        self.last_refusal = f"{type(error).__name__}: {error}"
        metrics.UPDATES_REFUSED.labels(kind=type(error).__name__).inc()
        log.error("weights refused", extra={"serving": self._target.version, "reason": self.last_refusal})
