"""What the decision is made from: plain values, taken at one moment. Counts are samples unless named otherwise."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A rollout pod as Kubernetes lists it."""

    name: str
    address: str
    """IP address, or host; empty while it has none."""
    ready: bool = False
    started: bool = False
    """Its startup probe has succeeded: it may have had users, ready now or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One rollout worker, that is, one pod."""

    name: str
    """Pod name, which is its consumer name too."""
    ready: bool = False
    """As Kubernetes has it. A cordoned worker soon is not, for it tells its health that it wants no users."""
    started: bool = False
    """As the pod's."""
    num_in_flight: int = 0
    """Samples it holds a lease on."""
    num_user_requests: int = 0
    """Answers to users that it is generating."""
    version: int = 0
    """Policy version it serves; 0: none, or it did not say."""
    answered: bool = True
    """False: asked for its users and version, it said nothing in time. Its samples are known from Redis."""
    cordoned: bool = False
    """Redis had it cordoned when its samples were counted: these become no more."""
    keeps_users_away: bool = True
    """Of a cordoned one: it says so itself, or can serve none. False: new ones may yet come to it."""

    @property
    def holds_work(self) -> bool:
        """Samples or users would have to be finished or handed back, were it stopped now."""
        return self.num_in_flight > 0 or self.num_user_requests > 0

    @property
    def is_emptied(self) -> bool:
        """Holds no work and gets none: it can be stopped."""
        return self.cordoned and self.keeps_users_away and not self.holds_work

    @property
    def is_usable(self) -> bool:
        """Can serve, were it not cordoned. False: it starts, or it is broken.

        One that does not answer is not relied on, ready or not: Kubernetes takes a minute to notice a dead node.
        """
        return self.answered and (self.ready or self.version > 0)

    @property
    def is_silent(self) -> bool:
        """May have users, and does not say."""
        return not self.answered and (self.ready or self.started)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """The run as Redis and the learner tell it."""

    num_waiting: int
    """Prompts in the pool, and entries of [prompts] that nobody holds."""
    num_in_flight: int
    """Entries of [prompts] that a worker holds."""
    num_ahead: int
    """Entries of [rollouts] and [scored]: sampled, not learned from yet."""
    max_samples_ahead: int
    """num_ahead + num_in_flight at which workers stop reading: the staleness bound, in samples."""
    oldest_seconds: float = 0.0
    """Age of the oldest entry of [prompts]; 0: it is empty."""
    learner_version: int = 0
    """0: unknown."""
    staleness: float = 0.0
    """Mean staleness of the newest step, in versions."""
    learner_samples_per_second: float | None = None
    """How fast samples leave [scored], over the last minutes. None: not known yet."""

    @property
    def backlog(self) -> int:
        """Undelivered and in flight."""
        return self.num_waiting + self.num_in_flight


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSpec:
    """A RolloutPool's wishes, validated."""

    name: str
    deployment: str
    min_replicas: int = 1
    max_replicas: int = 1
    fixed_replicas: int | None = None
    """`spec.replicas`: an operator's size, which overrules the signals. None: the scaler decides."""
    paused: bool = False
    priority: int = 0
    """Pools with a higher one are filled first and emptied last."""
    samples_per_replica: int = 64
    """Samples that a worker keeps in hand; its `max_concurrent_samples`."""
    users_per_replica: int = 16
    """User requests that a worker serves at a time without slowing them."""
    scale_down_seconds: float = 60.0
    """For how long a smaller size must have sufficed before a pool shrinks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolState:
    """A pool as it is."""

    spec: PoolSpec
    replicas: int
    """What its Deployment asks for now."""
    workers: tuple[Worker, ...] = ()
    generation: int = 0

    @property
    def num_serving(self) -> int:
        """Its size without those that are cordoned: these only wait to go."""
        return max(0, self.replicas - sum(worker.cordoned for worker in self.workers))


class Reason(StrEnum):
    """Why a pool has the size it has; also the reason of Events and a label of metrics."""

    BACKLOG = "Backlog"
    USERS = "Users"
    WORK_IN_HAND = "WorkInHand"
    LEARNER_BOUND = "LearnerBound"
    STABILIZING = "Stabilizing"
    AT_MINIMUM = "AtMinimum"
    AT_MAXIMUM = "AtMaximum"
    IDLE = "Idle"
    FIXED = "Fixed"
    PAUSED = "Paused"
    HOLDING = "Holding"
    """A signal is missing: the last size stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a pool's size should be, and why in one sentence."""

    pool: str
    replicas: int
    reason: Reason
    message: str
    """Numbers and names only; shown in status, Events and the operator's table."""
    cordon: tuple[str, ...] = ()
    """Workers that are to get no more work, by name; all others of the pool may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a decision needs of those before it: wishes of the last `scale_down_seconds`, by pool."""

    wishes: Mapping[str, tuple[tuple[float, int], ...]] = field(default_factory=dict)
    """(seconds of a monotone clock, replicas) newest last."""
