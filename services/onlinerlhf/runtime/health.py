"""What works and what does not, and why: feeds grpc.health, DiagnosticsService and a metric; logs each change once."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from onlinerlhf.core.errors import WaitTimeout
from onlinerlhf.runtime import metrics

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentHealth:
    """One thing a room needs in order to work."""

    name: str
    ok: bool
    reason: str
    """Empty where it is ok."""
    since_seconds: float
    """How long it has been so."""


@dataclass(slots=True)
class _State:
    ok: bool
    reason: str
    since: float


class Health:
    """A room's components. To be used from the event loop's thread."""

    def __init__(
        self,
        room: str,
        *,
        learning_only: Collection[str] = ("redis",),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`learning_only`: components without which users are answered all the same."""
        self.room = room
        self._learning_only = frozenset(learning_only)
        self._clock = clock
        self._started = clock()
        self._states: dict[str, _State] = {}
        self._draining = False
        self._stalled: str | None = None
        self._changed = asyncio.Event()

    def set(self, component: str, *, ok: bool, reason: str = "") -> None:
        """Report a component. The reason is a few words, free of prompt text and secrets."""
        reason = "" if ok else reason
        state = self._states.get(component)
        if state is not None and state.ok == ok:
            if state.reason != reason:
                state.reason = reason
                self.announce()
            return
        self._states[component] = _State(ok=ok, reason=reason, since=self._clock())
        metrics.COMPONENT_UP.labels(self.room, component).set(ok)
        if not ok:
            log.warning("component not ok", extra={"component": component, "reason": reason})
        elif state is not None:
            down_seconds = round(self._clock() - state.since, 3)
            log.info("component ok again", extra={"component": component, "down_seconds": down_seconds})
        self.announce()

    def ready(self) -> bool:
        """Whether work should come here: all components are ok, and no drain has begun."""
        return not self._draining and all(state.ok for state in self._states.values())

    def ready_for_users(self) -> bool:
        """Whether users can be answered here: as ready, but for what only learning needs."""
        return not self._draining and all(
            state.ok for name, state in self._states.items() if name not in self._learning_only
        )

    def stall(self, reason: str | None) -> None:
        """Declare that this process turns and gets nowhere, so that it is better restarted. None: it gets on again.

        For what a restart may mend alone: a peer that is away is no stall.
        """
        if reason == self._stalled:
            return
        self._stalled = reason
        if reason is None:
            log.info("no longer stalled")
        else:
            log.error("stalled", extra={"reason": reason})
        self.announce()

    @property
    def alive(self) -> bool:
        """Whether a restart would be wrong: also during a drain, and while peers are away."""
        return self._stalled is None

    @property
    def draining(self) -> bool:
        """Whether the process is on its way out."""
        return self._draining

    @property
    def uptime_seconds(self) -> float:
        """Since this object was made."""
        return self._clock() - self._started

    def components(self) -> tuple[ComponentHealth, ...]:
        """All components, by name."""
        now = self._clock()
        return tuple(
            ComponentHealth(name=name, ok=state.ok, reason=state.reason, since_seconds=now - state.since)
            for name, state in sorted(self._states.items())
        )

    def begin_drain(self) -> None:
        """Not ready from now on, whatever the components say."""
        if not self._draining:
            self._draining = True
            log.info("draining")
            self.announce()

    @property
    def changed(self) -> asyncio.Event:
        """Set at the next change. Take it before looking at the state, and no change goes unseen."""
        return self._changed

    async def wait_ready(self, timeout_seconds: float) -> None:
        """Wait until ready. Raises WaitTimeout, which names what is not ok."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while not self.ready():
                    await self._changed.wait()
        except TimeoutError:
            bad = [f"{part.name} ({part.reason})" for part in self.components() if not part.ok]
            what = "the drain ended" if self._draining else ", ".join(bad)
            raise WaitTimeout(f"{self.room} was not ready after {timeout_seconds:g} s: {what}") from None

    def announce(self) -> None:
        """Wake everybody who waits for a change."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
