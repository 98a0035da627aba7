"""RolloutPools as the commands see them: what the objects and their status say, read once and typed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from onlinerlhf.core.errors import NotFound
from onlinerlhf.scaler.commands.cluster import Cluster, Object
from onlinerlhf.scaler.kinds import ROLLOUT_POOL

DEFAULT_POOL: Final = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A condition of a pool's status."""

    type: str
    is_true: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """One pool. What the status lacks is None: nobody has said it yet."""

    name: str
    deployment: str
    min_replicas: int
    max_replicas: int
    fixed_replicas: int | None
    is_paused: bool
    generation: int
    observed_generation: int
    desired: int | None
    current: int | None
    ready: int | None
    backlog: int | None
    in_flight: int | None
    oldest_seconds: float | None
    staleness: float | None
    version: int | None
    learner_version: int | None
    reason: str
    message: str
    last_scaled: datetime | None
    conditions: tuple[Condition, ...]

    @property
    def mode(self) -> str:
        """What sets its size."""
        size = f"auto {self.min_replicas}..{self.max_replicas}"
        if self.fixed_replicas is not None:
            size = f"fixed {self.fixed_replicas}"
        return f"paused ({size})" if self.is_paused else size

    @property
    def is_seen(self) -> bool:
        """Whether the scaler has seen the newest wishes."""
        return self.observed_generation >= self.generation

    @property
    def troubles(self) -> tuple[Condition, ...]:
        """Conditions that an operator should look at."""
        bad = {"Ready": False, "Degraded": True}
        return tuple(each for each in self.conditions if bad.get(each.type) is each.is_true)


def pool_of(thing: Object) -> Pool:
    """From a RolloutPool object."""
    spec, status, meta = thing.get("spec") or {}, thing.get("status") or {}, thing["metadata"]
    return Pool(
        name=meta["name"],
        deployment=spec.get("deploymentName", ""),
        min_replicas=int(spec.get("minReplicas", 1)),
        max_replicas=int(spec.get("maxReplicas", 0)),
        fixed_replicas=spec.get("replicas"),
        is_paused=bool(spec.get("paused", False)),
        generation=int(meta.get("generation", 0)),
        observed_generation=int(status.get("observedGeneration", 0)),
        desired=status.get("desiredReplicas"),
        current=status.get("replicas"),
        ready=status.get("readyReplicas"),
        backlog=status.get("backlog"),
        in_flight=status.get("inFlight"),
        oldest_seconds=_number(status.get("oldestSeconds")),
        staleness=_number(status.get("staleness")),
        version=status.get("policyVersion"),
        learner_version=status.get("learnerVersion"),
        reason=status.get("reason", ""),
        message=status.get("message", ""),
        last_scaled=moment(status.get("lastScaleTime")),
        conditions=tuple(_condition(each) for each in status.get("conditions") or []),
    )


async def read_pools(cluster: Cluster) -> list[Pool]:
    """All pools of the namespace, by name."""
    try:
        found = await cluster.items(ROLLOUT_POOL)
    except NotFound:
        raise NotFound(
            "this cluster has no rolloutpools.onlinerlhf.dev: install the platform with `onlinerlhf k8s install`"
        ) from None
    return sorted((pool_of(each) for each in found), key=lambda pool: pool.name)


async def pick_pool(cluster: Cluster, name: str | None) -> Pool:
    """The named pool, or the only one. Raises NotFound, which lists those that there are."""
    pools = await read_pools(cluster)
    if not pools:
        raise NotFound(f"namespace {cluster.namespace} has no pools; -n names another namespace")
    if name is None and len(pools) == 1:
        return pools[0]
    wanted = DEFAULT_POOL if name is None else name
    for pool in pools:
        if pool.name == wanted:
            return pool
    problem = (
        f"no pool {wanted!r}"
        if name is not None
        else "several pools and none is called 'default': choose one with --pool"
    )
    raise NotFound(f"{problem} in namespace {cluster.namespace}; there are: {', '.join(_names(pools))}")


def moment(text: str | None) -> datetime | None:
    """A time as the API writes it."""
    return None if not text else datetime.fromisoformat(text.replace("Z", "+00:00"))


def _names(pools: Sequence[Pool]) -> list[str]:
    return [pool.name for pool in pools]


def _number(value: object) -> float | None:
    """Numbers may come as strings where the schema has none that are not whole."""
    return None if value is None else float(str(value))


def _condition(thing: Object) -> Condition:
    return Condition(
        type=thing.get("type", ""),
        is_true=thing.get("status") == "True",
        reason=thing.get("reason", ""),
        message=thing.get("message", ""),
    )
