"""What the learner is doing, for GetProgress and the metrics. Used from the event loop's thread only."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum


class Phase(StrEnum):
    """What the loop is in."""

    STARTING = "starting"
    COLLECTING = "collecting"
    STEPPING = "stepping"
    PUBLISHING = "publishing"
    CHECKPOINTING = "checkpointing"
    WAITING = "waiting"
    """For a disk that takes the checkpoint, or before training is tried again."""
    DONE = "done"
    """max_steps are done."""
    STOPPED = "stopped"


@dataclass(slots=True, kw_only=True)
class Status:
    """The loop writes it; the servicer reads it."""

    batch_size: int
    clock: Callable[[], float] = time.monotonic
    phase: Phase = Phase.STARTING
    step: int = 0
    version: int = 0
    checkpoint_step: int = 0
    num_collected: int = 0
    """Rollouts gathered for the next batch."""
    newest: dict[str, float] = field(default_factory=dict)
    """Numbers of the newest step."""
    errors: dict[str, str] = field(default_factory=dict)
    """What is wrong now, by what failed; the newest last."""
    counters: dict[str, int] = field(default_factory=dict)
    """Totals since the run's start; checkpoints carry them."""
    collecting_seconds: float = 0.0
    """Total time in which the learner waited for samples."""
    since: float | None = None
    """When the loop began, by the clock."""

    def count(self, name: str, number: int = 1) -> None:
        """Add to a total."""
        self.counters[name] = self.counters.get(name, 0) + number

    def fail(self, what: str, reason: str) -> None:
        """Something does not work."""
        self.errors.pop(what, None)
        self.errors[what] = reason

    def recover(self, what: str) -> None:
        """It works again, or still."""
        self.errors.pop(what, None)

    @property
    def last_error(self) -> str:
        """The newest of what is wrong now; empty when nothing is."""
        return next(reversed(self.errors.values()), "")

    @property
    def idle_share(self) -> float:
        """Share of the time since the loop began spent waiting for samples."""
        return self.collecting_seconds / max(self.observed_seconds, 1e-9)

    @property
    def observed_seconds(self) -> float:
        """Time since the loop began."""
        return 0.0 if self.since is None else self.clock() - self.since
