"""The loop around the turns: every poll_seconds, and at once when a pool or its Deployment changes.

Level-triggered: a watch only wakes the loop, which reads everything anew. So nothing depends on a watch; without one,
changes are seen a poll later.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from onlinerlhf.core.errors import OnlineRLHFError, StartupError
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.tasks import end
from onlinerlhf.scaler import metrics
from onlinerlhf.scaler.kinds import DEPLOYMENT, ROLLOUT_POOL, Kind
from onlinerlhf.scaler.kube import Json, Kube
from onlinerlhf.scaler.kube_errors import Expired, kind_of
from onlinerlhf.scaler.pace import MAX_BACKOFF_SECONDS, Pace
from onlinerlhf.scaler.turn import Turns

log = logging.getLogger(__name__)

TURN_SECONDS: Final = 30.0
"""A turn that takes longer is given up."""
SETTLE_SECONDS: Final = 0.2
"""Changes come in bursts; one turn is for all of a burst."""
WATCH_SECONDS: Final = 300.0
STALL_POLLS: Final = 3
KUBERNETES: Final = "kubernetes"
"""Component of the room's health."""


class Controller:
    """Takes turns until told to stop. To be run by the leader alone."""

    def __init__(
        self,
        kube: Kube,
        turns: Turns,
        *,
        health: Health,
        poll_seconds: float,
        stall_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """stall_seconds: without any turn, good or bad, for so long, liveness fails. None: several of the longest."""
        self._kube = kube
        self._turns = turns
        self._health = health
        self._poll_seconds = poll_seconds
        self._stall_seconds = stall_seconds or STALL_POLLS * (poll_seconds + TURN_SECONDS) + MAX_BACKOFF_SECONDS
        self._clock = clock
        self._pace = Pace(base_seconds=poll_seconds)
        self._wake = asyncio.Event()
        self._last_turn = clock()

    async def run(self, stop: asyncio.Event) -> None:
        """The loop, its watches and its watchdog."""
        self._last_turn = self._clock()
        async with asyncio.TaskGroup() as group:
            helpers = [
                group.create_task(self._watch(ROLLOUT_POOL), name="watch of rolloutpools"),
                group.create_task(self._watch(DEPLOYMENT), name="watch of deployments"),
                group.create_task(self._guard(), name="watchdog of the scaler"),
            ]
            while not stop.is_set():
                self._wake.clear()
                failed, pause = await self._turn()
                self._last_turn = self._clock()
                await self._pause(stop, pause, may_be_woken=not failed)
            await end(helpers)
        self._health.stall(None)

    async def _turn(self) -> tuple[bool, float]:
        """One turn; whether it failed, and for how long to rest."""
        started = self._clock()
        error: OnlineRLHFError | None
        try:
            async with asyncio.timeout(TURN_SECONDS):
                error = await self._turns.turn()
        except StartupError:
            raise
        except OnlineRLHFError as failure:
            metrics.ERRORS.labels(kind_of(failure)).inc()
            log.warning("turn failed", extra={"kind": kind_of(failure), "reason": str(failure)})
            self._health.set(KUBERNETES, ok=False, reason=str(failure))
            return True, self._pace.after(failure)
        except TimeoutError:
            return self._gave_up("timeout", f"a turn took longer than {TURN_SECONDS:g} s")
        except Exception as failure:
            log.exception("turn failed")
            return self._gave_up("bug", f"a turn failed ({type(failure).__name__})")
        metrics.TURN_SECONDS.observe(self._clock() - started)
        metrics.LAST_TURN.set_to_current_time()
        self._health.set(KUBERNETES, ok=True)
        if error is not None:
            return True, self._pace.after(error)
        self._pace.fine()
        return False, self._poll_seconds * random.uniform(0.9, 1.0)

    def _gave_up(self, kind: str, reason: str) -> tuple[bool, float]:
        metrics.ERRORS.labels(kind).inc()
        self._health.set(KUBERNETES, ok=False, reason=reason)
        return True, self._pace.after(None)

    async def _pause(self, stop: asyncio.Event, seconds: float, *, may_be_woken: bool) -> None:
        """Rest until told to stop, or (after a good turn) until something changes."""
        events = [stop, self._wake] if may_be_woken else [stop]
        tasks = [asyncio.create_task(event.wait(), name="pause of the scaler") for event in events]
        try:
            await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if may_be_woken and self._wake.is_set() and not stop.is_set():
                await asyncio.wait(tasks[:1], timeout=min(SETTLE_SECONDS, seconds))
        finally:
            await end(tasks)

    async def _watch(self, kind: Kind) -> None:
        """Wake the loop when an object of this kind changes. Broken watches are begun again, later each time."""
        pace = Pace(base_seconds=min(1.0, self._poll_seconds))
        version, seen = "", dict[str, tuple[Any, ...]]()
        while True:
            error: OnlineRLHFError | None = None
            try:
                seconds = WATCH_SECONDS * random.uniform(0.8, 1.0)
                async for event, thing in self._kube.watch(kind, resource_version=version, seconds=seconds):
                    version = thing.get("metadata", {}).get("resourceVersion", version)
                    pace.fine()
                    if _is_news(seen, event, thing):
                        self._wake.set()
            except Expired:
                # What was missed meanwhile is found by reading everything.
                metrics.ERRORS.labels("expired").inc()
                version, seen = "", {}
            except OnlineRLHFError as failure:
                error = failure
                metrics.ERRORS.labels(f"watch_{kind_of(failure)}").inc()
                log.warning("watch broken", extra={"resource": kind.resource, "reason": str(failure)})
            await asyncio.sleep(pace.after(error))

    async def _guard(self) -> None:
        """Liveness fails while no turn ends."""
        while True:
            silent = self._clock() - self._last_turn
            stalled = silent > self._stall_seconds
            self._health.stall(f"no turn ended for {silent:.0f} s" if stalled else None)
            await asyncio.sleep(min(self._stall_seconds / 4, 1.0))


def _is_news(seen: dict[str, tuple[Any, ...]], event: str, thing: Json) -> bool:
    """Whether a turn may have more to do than a moment ago. Our own status writes are no news."""
    if event == "BOOKMARK":
        return False
    meta: Mapping[str, Any] = thing.get("metadata") or {}
    status = thing.get("status") or {}
    # A RolloutPool's status is ours; a Deployment's tells how many of its pods there are.
    pods = (status.get("replicas"), status.get("readyReplicas")) if thing.get("kind") == DEPLOYMENT.kind else ()
    look = (meta.get("generation"), meta.get("deletionTimestamp"), *pods)
    name = str(meta.get("uid"))
    if event == "DELETED":
        seen.pop(name, None)
        return True
    changed = seen.get(name) != look
    seen[name] = look
    return changed
