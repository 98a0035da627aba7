"""One turn: read everything, decide, make the Deployments so, report. It remembers little, so a restart loses little.

pools, scales, pods ─┐
                     ├─► decide ─► cordons ─► (shrinks: deletion costs first) scale ─► status, Events, metrics
pipeline, workers ───┘
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from onlinerlhf.core.errors import LimitReached, NotFound, OnlineRLHFError, Unavailable
from onlinerlhf.runtime.health import Health
from onlinerlhf.scaler import metrics
from onlinerlhf.scaler.decision import decide
from onlinerlhf.scaler.events import Events
from onlinerlhf.scaler.kinds import DEPLOYMENT, POD, ROLLOUT_POOL
from onlinerlhf.scaler.kube import CALL_SECONDS, Kube
from onlinerlhf.scaler.kube_errors import Conflict, kind_of
from onlinerlhf.scaler.observation import Memory, Pipeline, PoolState
from onlinerlhf.scaler.pools import DELETION_COST, deletion_costs
from onlinerlhf.scaler.reading import Signals, lack_of, note, read_pools, read_signals
from onlinerlhf.scaler.status import patch_of, status_of
from onlinerlhf.scaler.view import Trouble, View, keep_size

log = logging.getLogger(__name__)

SIGNALS: Final = "signals"
"""Component of the room's health."""


class Turns:
    """Takes turns. What it keeps between them: wishes of the last minutes, and when it last wrote each status."""

    def __init__(
        self,
        kube: Kube,
        signals: Signals,
        *,
        health: Health,
        identity: str,
        may_act_seconds: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """may_act_seconds: for how long this process surely leads; nothing is written that may outlast it."""
        self._kube = kube
        self._signals = signals
        self._health = health
        self._events = Events(kube, identity=identity, clock=clock)
        self._may_act_seconds = may_act_seconds
        self._clock = clock
        self._memory = Memory()
        self._written: dict[str, float] = {}
        self._resized: dict[str, str] = {}
        self._pools: set[str] = set()
        self._seen: dict[str, PoolState] = {}

    async def turn(self) -> OnlineRLHFError | None:
        """Read, decide, act, report. Raises where nothing could be read; returns a failure that changes the pace."""
        views = await read_pools(self._kube)
        pipeline, lack = await read_signals(self._signals, views)
        self._decide(views, pipeline)
        lack = lack or await self._cordon(views)
        self._health.set(SIGNALS, ok=lack is None, reason=lack.message if lack else "")
        for view in views:
            await self._act(view)
        for view in views:
            view.trouble = view.trouble or lack
            await self._report(view, pipeline)
        self._measure(views, pipeline)
        # What is not there or not allowed stays so for a while: no reason for the other pools to wait longer.
        return next((view.problem for view in views if isinstance(view.problem, Unavailable)), None)

    def _decide(self, views: Sequence[View], pipeline: Pipeline | None) -> None:
        """A decision for each pool that could be read. One that could not keeps its share, as when it last could."""
        states = {view.uid: view.state or _as_it_was(self._seen.get(view.uid), view) for view in views}
        known = [state for state in states.values() if state is not None]
        decisions, self._memory = decide(pipeline, known, self._memory, now=self._clock())
        found = {decision.pool: decision for decision in decisions}
        for view in views:
            if view.state is not None:
                view.decision = found[view.name]
                metrics.DECISIONS.labels(view.name, view.decision.reason.value).inc()
        self._seen = {uid: state for uid, state in states.items() if state is not None}

    async def _cordon(self, views: Sequence[View]) -> Trouble | None:
        """Tell the workers. What cannot be told is not so: no pool that the scaler sizes shrinks in this turn."""
        decided = [view for view in views if view.decision is not None]
        cordoned = {name for view in decided if view.decision for name in view.decision.cordon}
        lifted = {each.name for view in decided for each in view.workers if each.cordoned} - cordoned
        if not cordoned and not lifted:
            return None
        self._seconds()
        try:
            await self._signals.cordon(sorted(cordoned), lift=sorted(lifted))
        except OnlineRLHFError as error:
            for view in decided:
                keep_size(view, "the cordons could not be written")
            return lack_of(error)
        return None

    async def _act(self, view: View) -> None:
        """Make the Deployment as large as was decided, where it is not."""
        decision, scale = view.decision, view.scale
        if decision is None or scale is None or view.spec is None or decision.replicas == scale.replicas:
            return
        try:
            if decision.replicas < scale.replicas:
                await self._mark_costs(view)
            patch = {
                "metadata": {"resourceVersion": scale.resource_version},
                "spec": {"replicas": decision.replicas},
            }
            await self._kube.patch(
                DEPLOYMENT, view.spec.deployment, patch, subresource="scale", timeout_seconds=self._seconds()
            )
        except Conflict as error:
            # Somebody else wrote it since: the next turn decides on what is there then.
            metrics.ERRORS.labels(kind_of(error)).inc()
            log.info("the deployment has changed meanwhile", extra={"pool": view.name})
            view.decision, view.problem = None, error
            return
        except LimitReached:
            raise
        except OnlineRLHFError as error:
            note(view, error)
            return
        # Kept until a status has it: this turn may yet fail.
        self._resized[view.uid] = _timestamp()
        metrics.RESIZES.labels(view.name, "up" if decision.replicas > scale.replicas else "down").inc()
        log.info(
            "resized",
            extra={
                "pool": view.name,
                "before": scale.replicas,
                "after": decision.replicas,
                "reason": decision.reason.value,
                "why": decision.message,
            },
        )
        await self._events.resized(view, before=scale.replicas, after=decision.replicas, seconds=self._seconds())

    async def _mark_costs(self, view: View) -> None:
        """Say which pods have least in hand, so that those go first."""
        for name, cost in deletion_costs(view.pods, view.workers).items():
            try:
                body = {"metadata": {"annotations": {DELETION_COST: cost}}}
                await self._kube.patch(POD, name, body, timeout_seconds=self._seconds())
            except NotFound:
                continue

    async def _report(self, view: View, pipeline: Pipeline | None) -> None:
        """Status and Events, where they have anything new to say."""
        if view.decision is None and view.trouble is None:
            # A conflict: what was read is old, and so would be the report.
            return
        old, now = view.pool.get("status") or {}, self._clock()
        new = status_of(view, pipeline, resized=self._resized.get(view.uid), now=_timestamp())
        patch = patch_of(old, new, seconds_since_write=now - self._written.get(view.uid, -math.inf))
        try:
            await self._events.state(view, seconds=self._seconds())
            if patch is not None:
                # The uid keeps it off a pool that was made anew under this name.
                body = {"metadata": {"uid": view.uid}, "status": patch}
                await self._kube.patch(
                    ROLLOUT_POOL, view.name, body, subresource="status", timeout_seconds=self._seconds()
                )
                self._written[view.uid] = now
        except (NotFound, Conflict):
            # Deleted while we looked at it.
            return
        except LimitReached:
            raise
        except OnlineRLHFError as error:
            metrics.ERRORS.labels(kind_of(error)).inc()
            log.warning("status not written", extra={"pool": view.name, "reason": str(error)})
            view.problem = view.problem or error

    def _seconds(self) -> float:
        """Time-out of a write."""
        seconds = min(CALL_SECONDS, self._may_act_seconds())
        if seconds <= 0:
            raise Unavailable("the lease is not surely ours any more: nothing is written")
        return seconds

    def _measure(self, views: Sequence[View], pipeline: Pipeline | None) -> None:
        known = pipeline or None
        metrics.BACKLOG.set(known.backlog if known else math.nan)
        metrics.IN_FLIGHT.set(known.num_in_flight if known else math.nan)
        metrics.OLDEST_SECONDS.set(known.oldest_seconds if known else math.nan)
        metrics.AHEAD.set(known.num_ahead if known else math.nan)
        metrics.STALENESS.set(known.staleness if known else math.nan)
        for view in views:
            metrics.DEGRADED.labels(view.name).set(view.trouble is not None)
            if view.decision is not None:
                metrics.DESIRED.labels(view.name).set(view.decision.replicas)
                metrics.CORDONED.labels(view.name).set(len(view.decision.cordon))
            if view.scale is not None:
                metrics.CURRENT.labels(view.name).set(view.scale.num_pods)
                metrics.READY.labels(view.name).set(view.num_ready)
        pools = {view.name for view in views}
        for gone in self._pools - pools:
            for gauge in metrics.POOL:
                gauge.remove(gone)
        self._pools = pools
        self._resized = {view.uid: self._resized[view.uid] for view in views if view.uid in self._resized}
        self._written = {view.uid: self._written[view.uid] for view in views if view.uid in self._written}


def _as_it_was(state: PoolState | None, view: View) -> PoolState | None:
    """A pool that cannot be read now: its replicas are there, and no other pool's need to do their work."""
    if state is None or not isinstance(view.problem, Unavailable):
        return None
    return replace(state, spec=replace(state.spec, paused=True))


def _timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
