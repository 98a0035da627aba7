"""One pool in one turn: what was read, what was decided, what came of it."""

from dataclasses import dataclass, field, replace

from onlinerlhf.core.errors import OnlineRLHFError
from onlinerlhf.scaler.kube import Json
from onlinerlhf.scaler.observation import Decision, Pod, PoolSpec, PoolState, Reason, Worker
from onlinerlhf.scaler.pools import Scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why the scaler cannot do its work on a pool."""

    reason: str
    """One word, for the Degraded condition and Events."""
    message: str


@dataclass(slots=True, kw_only=True)
class View:
    """Filled in as the turn goes on."""

    pool: Json
    """The RolloutPool as listed."""
    spec: PoolSpec | None = None
    """None: it cannot be acted on; `trouble` says why."""
    scale: Scale | None = None
    pods: list[Json] = field(default_factory=list)
    workers: tuple[Worker, ...] = ()
    decision: Decision | None = None
    trouble: Trouble | None = None
    problem: OnlineRLHFError | None = None
    """The failure of a call behind it, if any."""

    @property
    def name(self) -> str:
        """The pool's."""
        return str(self.pool["metadata"]["name"])

    @property
    def uid(self) -> str:
        """The pool's: one made anew under the old name is another pool."""
        return str(self.pool["metadata"]["uid"])

    @property
    def state(self) -> PoolState | None:
        """For the decision. None: the pool takes no part in it."""
        if self.spec is None or self.scale is None or self.trouble is not None:
            return None
        generation = int(self.pool["metadata"].get("generation", 0))
        return PoolState(spec=self.spec, replicas=self.scale.replicas, workers=self.workers, generation=generation)

    @property
    def degraded_for(self) -> str | None:
        """The reason that the pool's status gives for being degraded so far. None: it is not."""
        conditions = (self.pool.get("status") or {}).get("conditions") or []
        found = (each for each in conditions if each.get("type") == "Degraded" and each.get("status") == "True")
        return next((str(each.get("reason", "")) for each in found), None)

    @property
    def num_ready(self) -> int:
        """Workers that are ready."""
        return sum(worker.ready for worker in self.workers)


def keep_size(view: View, why: str) -> None:
    """Where the scaler would make the pool smaller, not now."""
    decision, scale = view.decision, view.scale
    if decision is None or scale is None or decision.reason in (Reason.FIXED, Reason.PAUSED):
        return
    if decision.replicas < scale.replicas:
        message = f"{why}: keeps {scale.replicas} replicas; {decision.replicas} would do"
        view.decision = replace(decision, replicas=scale.replicas, reason=Reason.HOLDING, message=message)


def without_signals(pods: list[Pod]) -> tuple[Worker, ...]:
    """Workers of which only the pods are known."""
    return tuple(Worker(name=pod.name, ready=pod.ready, started=pod.started, answered=False) for pod in pods)
