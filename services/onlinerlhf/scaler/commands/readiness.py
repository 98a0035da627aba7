"""Whether workloads are up, and where not, what each pod waits for. Pure: API objects in, words out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from onlinerlhf.scaler.commands.cluster import Object

_EVENT_CHARS: Final = 300
_UNINFORMATIVE: Final = frozenset({"PodInitializing", "ContainerCreating"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """How far a Deployment, StatefulSet or Job is."""

    kind: str
    name: str
    wanted: int
    ready: int
    is_done: bool
    """All of the newest revision, and all ready."""
    problem: str = ""
    """Why it will not get there by itself, where that is known."""

    @property
    def label(self) -> str:
        """As kubectl names it."""
        return f"{self.kind.lower()}/{self.name}"

    @property
    def state(self) -> str:
        """One word or ratio for a table."""
        if self.kind == "Job":
            return "complete" if self.is_done else "failed" if self.problem else "running"
        return f"{self.ready}/{self.wanted}"


def workload_of(thing: Object) -> Workload:
    """From an object of one of the three kinds."""
    read = {"Deployment": _deployment, "StatefulSet": _stateful_set, "Job": _job}[thing["kind"]]
    return read(thing)


def _deployment(thing: Object) -> Workload:
    spec, status = thing["spec"], thing.get("status") or {}
    wanted = _count(spec, "replicas", 1)
    is_seen = _count(status, "observedGeneration") >= _count(thing["metadata"], "generation")
    counts = [_count(status, key) for key in ("replicas", "updatedReplicas", "availableReplicas")]
    failure = _condition(status, "ReplicaFailure")
    return Workload(
        kind="Deployment",
        name=thing["metadata"]["name"],
        wanted=wanted,
        ready=_count(status, "readyReplicas"),
        is_done=is_seen and counts == [wanted] * 3,
        problem=failure.get("message", "") if failure.get("status") == "True" else "",
    )


def _stateful_set(thing: Object) -> Workload:
    spec, status = thing["spec"], thing.get("status") or {}
    wanted, ready = _count(spec, "replicas", 1), _count(status, "readyReplicas")
    is_seen = _count(status, "observedGeneration") >= _count(thing["metadata"], "generation")
    is_newest = status.get("currentRevision") == status.get("updateRevision")
    return Workload(
        kind="StatefulSet",
        name=thing["metadata"]["name"],
        wanted=wanted,
        ready=ready,
        is_done=is_seen and is_newest and ready == wanted,
    )


def _job(thing: Object) -> Workload:
    status = thing.get("status") or {}
    failure = _condition(status, "Failed")
    return Workload(
        kind="Job",
        name=thing["metadata"]["name"],
        wanted=_count(thing["spec"], "completions", 1),
        ready=_count(status, "succeeded"),
        is_done=_condition(status, "Complete").get("status") == "True",
        problem=failure.get("message", "it failed") if failure.get("status") == "True" else "",
    )


def is_ready(pod: Object) -> bool:
    """Whether a pod takes traffic."""
    return _condition(pod.get("status") or {}, "Ready").get("status") == "True"


def belongs(thing: Object, workload: Object) -> bool:
    """Whether a pod has the labels that the workload selects."""
    wanted = ((workload["spec"].get("selector") or {}).get("matchLabels")) or {}
    labels = thing["metadata"].get("labels") or {}
    return bool(wanted) and wanted.items() <= labels.items()


def waits_for(pod: Object, events: Sequence[Object]) -> str:
    """Why a pod is not ready, the nearest cause first; empty: it is ready, or has done its work.

    Container states say more than conditions, and events more than a state that only says that it is being made.
    """
    status = pod.get("status") or {}
    if is_ready(pod) or status.get("phase") == "Succeeded":
        return ""
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        return f"a node: {scheduled.get('message') or scheduled.get('reason', 'not scheduled')}"
    for cause in _container_causes(status):
        return cause
    said = newest_warning(events, pod["metadata"]["name"])
    if said:
        return said
    if pod["metadata"].get("deletionTimestamp"):
        return "its end: it is terminating"
    running = [each["name"] for each in status.get("containerStatuses") or [] if "running" in (each.get("state") or {})]
    if running:
        return f"readiness: {', '.join(running)} runs and its probe does not succeed yet"
    return f"its containers: {status.get('phase', 'Pending')}"


def newest_warning(events: Iterable[Object], name: str) -> str:
    """What the newest warning about an object says."""
    about = [
        event
        for event in events
        if event.get("type") == "Warning" and (event.get("regarding") or {}).get("name") == name
    ]
    if not about:
        return ""
    newest = max(about, key=_seen)
    return f"{newest.get('reason', 'warning')}: {str(newest.get('note', '')).strip()[:_EVENT_CHARS]}"


def _seen(event: Object) -> str:
    """When it was last seen. The kubelet still writes the older form, whose time has a name of its own."""
    series = (event.get("series") or {}).get("lastObservedTime")
    return str(series or event.get("deprecatedLastTimestamp") or event.get("eventTime") or "")


def _container_causes(status: Mapping[str, Any]) -> Iterator[str]:
    groups = ("initContainerStatuses", "containerStatuses")
    for container in (each for group in groups for each in status.get(group) or []):
        state, name = container.get("state") or {}, container["name"]
        ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
        waiting = state.get("waiting") or {}
        if waiting and waiting.get("reason") not in _UNINFORMATIVE:
            how = f", {_ending(ended)}" if ended else ""
            words = f": {waiting['message']}" if waiting.get("message") else ""
            yield f"container {name}: {waiting.get('reason', 'waiting')}{how}{words}"[: 2 * _EVENT_CHARS]
        elif ended.get("exitCode"):
            yield f"container {name}: {_ending(ended)}; restarted {container.get('restartCount', 0)} times"


def _ending(ended: Mapping[str, Any]) -> str:
    return f"ended with {ended.get('exitCode')} ({ended.get('reason', 'unknown')})"


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((each for each in status.get("conditions") or [] if each.get("type") == kind), {})


def _count(values: Mapping[str, Any], key: str, default: int = 0) -> int:
    found = values.get(key)
    return default if found is None else int(found)
