"""Everything `status`, `doctor` and the live view show, as plain values taken at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from onlinerlhf.core.samples import Stage

STREAMS = (Stage.PROMPTS, Stage.ROLLOUTS, Stage.SCORED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentView:
    """A part of a service: redis, engine, weights, disk, …"""

    name: str
    ok: bool
    reason: str = ""
    since_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceView:
    """One supervised process as seen from outside."""

    name: str
    error: str = ""
    """Why it could not be asked; empty when it answered."""
    components: tuple[ComponentView, ...] = ()
    restarts: int = 0
    uptime_seconds: float = 0.0
    state: str = "ready"
    """Its supervisor's word: starting, ready, draining, backing off, failed."""

    @property
    def ok(self) -> bool:
        """Answers, and all its components are well."""
        return not self.error and all(component.ok for component in self.components)

    @property
    def is_in_passing(self) -> bool:
        """Not ok for a while and by intention: told to go, or starting for the first time."""
        return self.state == "draining" or (self.state == "starting" and self.restarts == 0)

    @property
    def wrong(self) -> str:
        """What is, or will soon be right; empty where all is well."""
        parts = (f"{part.name}: {part.reason}" for part in self.components if not part.ok)
        return self.error or "; ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerView:
    """One reader of a stream."""

    name: str
    pending: int
    """Entries it holds."""
    idle_seconds: float
    """Since it last read or renewed a lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageView:
    """One stream."""

    backlog: int = 0
    consumers: tuple[ConsumerView, ...] = ()
    num_dead: int = 0
    """Entries in its dead-letter stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutView:
    """A worker's own account."""

    name: str
    version: int = 0
    ready: bool = True
    reason: str = ""
    state: str = "ready"
    """Its supervisor's word, as a service's."""
    num_in_flight: int = 0
    num_tokens_generated: int = 0
    tokens_per_second: float = 0.0
    num_updates_applied: int = 0
    num_updates_refused: int = 0
    pause_seconds: float = 0.0
    last_refusal: str = ""
    idle_share: float = 0.0
    observed_seconds: float = 0.0
    """The time that `idle_share` is the share of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersView:
    """How many rollout workers there are."""

    desired: int = 1
    """Asked for last."""
    current: int = 1
    """Started, and not told to go."""
    ready: int = 1
    draining: int = 0
    places: int = 1
    """The most that can be asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerView:
    """The learner's own account."""

    step: int = 0
    version: int = 1
    checkpoint_step: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    phase: str = ""
    num_collected: int = 0
    batch_size: int = 0
    idle_share: float = 0.0
    observed_seconds: float = 0.0
    """The time that `idle_share` is the share of."""
    last_error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerView:
    """Where every admitted sample is."""

    admitted: int = 0
    trained: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    pending: Mapping[str, int] = field(default_factory=dict)
    imbalance: int = 0
    """admitted - trained - dropped - pending; 0, or samples were lost or doubled."""

    @property
    def num_dropped(self) -> int:
        """For whatever reason."""
        return sum(self.dropped.values())

    @property
    def num_pending(self) -> int:
        """In the pool or a stream."""
        return sum(self.pending.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Settings that say when a queue is full or a reader late."""

    max_samples_ahead: int = 1024
    lease_seconds: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The platform at one moment. What could not be asked is empty or None."""

    run_id: str = "local"
    services: tuple[ServiceView, ...] = ()
    redis_error: str = ""
    stages: Mapping[Stage, StageView] = field(default_factory=dict)
    pool_new: int = 0
    """Prompts not yet fed."""
    pool_reuse: int = 0
    """Prompts waiting for another epoch."""
    ledger: LedgerView | None = None
    rollouts: tuple[RolloutView, ...] = ()
    workers: WorkersView = field(default_factory=WorkersView)
    learner: LearnerView | None = None
    limits: Limits = field(default_factory=Limits)

    @property
    def tokens_per_second(self) -> float:
        """Over all workers."""
        return sum(worker.tokens_per_second for worker in self.rollouts)

    @property
    def num_updates_applied(self) -> int:
        """Of the worker that applied the most."""
        return max((worker.num_updates_applied for worker in self.rollouts), default=0)

    def backlog(self, stage: Stage) -> int:
        """Entries of one stream, undelivered and in flight."""
        return self.stages[stage].backlog if stage in self.stages else 0
