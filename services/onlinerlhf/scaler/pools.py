"""RolloutPools, pods and scales as the API writes them -> the values that a decision is made from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from onlinerlhf.core.errors import InvalidInput
from onlinerlhf.scaler.cordon import deletion_cost
from onlinerlhf.scaler.kube import Json
from onlinerlhf.scaler.observation import Pod, PoolSpec, Worker

DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
_MAX_COST: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A Deployment's size as its `scale` subresource tells it."""

    replicas: int
    """Asked for. The API leaves 0 out, so absent is 0."""
    num_pods: int
    """That there are."""
    selector: str
    resource_version: str


def spec_of(pool: Json) -> PoolSpec:
    """A RolloutPool's wishes. Raises InvalidInput where the API server let nonsense through."""
    spec, name = pool.get("spec") or {}, pool["metadata"]["name"]
    deployment = spec.get("deploymentName")
    if not isinstance(deployment, str) or not deployment:
        raise InvalidInput("spec.deploymentName is missing")
    if "maxReplicas" not in spec:
        raise InvalidInput("spec.maxReplicas is missing")
    least, most = _count(spec, "minReplicas", 1), _count(spec, "maxReplicas", 1)
    if most < least:
        raise InvalidInput(f"spec.maxReplicas ({most}) is less than spec.minReplicas ({least})")
    return PoolSpec(
        name=name,
        deployment=deployment,
        min_replicas=least,
        max_replicas=most,
        fixed_replicas=None if spec.get("replicas") is None else _count(spec, "replicas", 0),
        paused=spec.get("paused") is True,
        priority=_count(spec, "priority", 0, at_least=-1_000_000),
        samples_per_replica=_count(spec, "samplesPerReplica", 64, at_least=1),
        users_per_replica=_count(spec, "usersPerReplica", 16, at_least=1),
        scale_down_seconds=float(_count(spec, "scaleDownSeconds", 60)),
    )


def mode_of(spec: PoolSpec) -> str:
    """What sets the pool's size, in one word."""
    if spec.paused:
        return "Paused"
    return "Automatic" if spec.fixed_replicas is None else "Fixed"


def scale_of(scale: Json) -> Scale:
    """From an autoscaling/v1 Scale."""
    status = scale.get("status") or {}
    return Scale(
        replicas=int((scale.get("spec") or {}).get("replicas") or 0),
        num_pods=int(status.get("replicas") or 0),
        selector=str(status.get("selector") or ""),
        resource_version=str(scale["metadata"]["resourceVersion"]),
    )


def living(pods: Iterable[Json]) -> list[Json]:
    """Pods that are neither finished nor on their way out: those that the Deployment counts."""
    return [
        pod
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp")
        and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
    ]


def pod_of(pod: Json) -> Pod:
    """A worker's pod."""
    status = pod.get("status") or {}
    ready = any(each.get("type") == "Ready" and each.get("status") == "True" for each in status.get("conditions") or ())
    started = any(each.get("started") is True for each in status.get("containerStatuses") or ())
    return Pod(name=pod["metadata"]["name"], address=str(status.get("podIP") or ""), ready=ready, started=started)


def deletion_costs(pods: Sequence[Json], workers: Iterable[Worker]) -> dict[str, str]:
    """Pod name -> pod-deletion-cost, where it is another: what is in hand, so that the emptied go first."""
    costs = {each.name: str(min(deletion_cost(each), _MAX_COST)) for each in workers}
    written = {pod["metadata"]["name"]: (pod["metadata"].get("annotations") or {}).get(DELETION_COST) for pod in pods}
    # A pod without the annotation costs 0.
    return {name: cost for name, cost in costs.items() if name in written and cost != (written[name] or "0")}


def rivals(pools: Sequence[Json]) -> Mapping[str, str]:
    """Pool name -> name of the older pool that has its Deployment already."""
    owners: dict[str, str] = {}
    found: dict[str, str] = {}
    for pool in sorted(pools, key=_age):
        name, deployment = pool["metadata"]["name"], (pool.get("spec") or {}).get("deploymentName", "")
        if (owner := owners.setdefault(deployment, name)) != name:
            found[name] = owner
    return found


def _age(pool: Json) -> tuple[datetime, str]:
    """Oldest first; those of the same second by name."""
    meta = pool["metadata"]
    return datetime.fromisoformat(meta["creationTimestamp"].replace("Z", "+00:00")), meta["name"]


def _count(spec: Mapping[str, Any], key: str, default: int, *, at_least: int = 0) -> int:
    value = spec.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise InvalidInput(f"spec.{key} is {value!r}; expected a whole number of at least {at_least}")
    return value
