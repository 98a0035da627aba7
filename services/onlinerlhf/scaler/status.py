"""What a RolloutPool's status says, and when it is worth a write.

What an operator acts on (sizes, reason, conditions) is written as it changes. Figures move all the time: they are
rounded, and on their own are written at most every FIGURES_SECONDS.
"""

from collections.abc import Mapping
from typing import Any, Final

from onlinerlhf.scaler.kube import Json
from onlinerlhf.scaler.observation import Pipeline, Reason
from onlinerlhf.scaler.pools import mode_of
from onlinerlhf.scaler.view import View

FIGURES_SECONDS: Final = 15.0
FIGURES: Final = ("backlog", "inFlight", "oldestSeconds", "staleness", "policyVersion", "learnerVersion", "message")
MAX_MESSAGE_CHARACTERS: Final = 1000
_LIMITED: Final = (Reason.AT_MAXIMUM, Reason.LEARNER_BOUND)


def status_of(view: View, pipeline: Pipeline | None, *, resized: str | None, now: str) -> Json:
    """The whole new status; None stands for what is not known. resized: when this process last changed the size."""
    old = view.pool.get("status") or {}
    decision, trouble, scale = view.decision, view.trouble, view.scale
    reason = decision.reason.value if decision else trouble.reason if trouble else None
    message = decision.message if decision else trouble.message if trouble else None
    versions = [worker.version for worker in view.workers if worker.ready and worker.answered and worker.version > 0]
    return {
        "observedGeneration": view.pool["metadata"].get("generation"),
        "mode": mode_of(view.spec) if view.spec else None,
        "replicas": scale.num_pods if scale else old.get("replicas"),
        "readyReplicas": view.num_ready if scale else old.get("readyReplicas"),
        "desiredReplicas": decision.replicas if decision else None,
        "selector": scale.selector if scale else old.get("selector"),
        "backlog": rounded(pipeline.backlog) if pipeline else None,
        "inFlight": rounded(sum(worker.num_in_flight for worker in view.workers)) if pipeline else None,
        "oldestSeconds": rounded(pipeline.oldest_seconds) if pipeline else None,
        "staleness": round(pipeline.staleness, 1) if pipeline else None,
        "policyVersion": min(versions, default=0) if pipeline else None,
        "learnerVersion": pipeline.learner_version if pipeline else None,
        "reason": reason,
        "message": message[:MAX_MESSAGE_CHARACTERS] if message else None,
        "lastScaleTime": resized or old.get("lastScaleTime"),
        "conditions": _conditions(view, old, now=now),
    }


def rounded(value: float) -> int:
    """To two leading digits: 7, 83, 1300."""
    whole = round(value)
    return round(whole, min(2 - len(str(abs(whole))), 0))


def patch_of(old: Mapping[str, Any], new: Json, *, seconds_since_write: float) -> Json | None:
    """The fields to write (None removes one), or nothing where that can wait."""
    changed = {key: value for key, value in new.items() if value != old.get(key)}
    if not changed or (set(changed) <= set(FIGURES) and seconds_since_write < FIGURES_SECONDS):
        return None
    return changed


def _conditions(view: View, old: Mapping[str, Any], *, now: str) -> list[Json]:
    before = {each.get("type"): each for each in old.get("conditions") or []}
    return [
        _condition(before.get(name), name, holds, reason, message, view, now=now)
        for name, (holds, reason, message) in {
            "Ready": _ready(view),
            "Degraded": _degraded(view),
            "ScalingLimited": _limited(view),
        }.items()
    ]


def _ready(view: View) -> tuple[bool, str, str]:
    if view.scale is None or view.decision is None:
        trouble = view.trouble
        return False, trouble.reason if trouble else "Unknown", trouble.message if trouble else "the pool was not read"
    wanted, cordon = view.decision.replicas, view.decision.cordon
    # Those cordoned need not be ready, and are either counted in the size yet or about to go.
    num_needed = min(wanted, max(wanted, view.scale.replicas) - len(cordon))
    if sum(worker.ready for worker in view.workers if worker.name not in cordon) < num_needed:
        return False, "PodsNotReady", "not all pods that are wanted are ready"
    return True, "PodsReady", "the pods that are wanted are ready"


def _degraded(view: View) -> tuple[bool, str, str]:
    if view.trouble is None:
        return False, "AsExpected", "the scaler can do its work"
    return True, view.trouble.reason, view.trouble.message


def _limited(view: View) -> tuple[bool, str, str]:
    decision = view.decision
    if decision is None or decision.reason not in _LIMITED:
        return False, "WithinBounds", "the size is what is needed"
    what = "maxReplicas" if decision.reason is Reason.AT_MAXIMUM else "the learner's staleness bound"
    return True, decision.reason.value, f"more would be used, but for {what}"


def _condition(
    old: Mapping[str, Any] | None, name: str, holds: bool, reason: str, message: str, view: View, *, now: str
) -> Json:
    status = str(holds)
    since = old["lastTransitionTime"] if old and old.get("status") == status else now
    generation = {"observedGeneration": found} if (found := view.pool["metadata"].get("generation")) else {}
    return {
        "type": name,
        "status": status,
        **generation,
        "lastTransitionTime": since,
        "reason": reason,
        "message": message[:MAX_MESSAGE_CHARACTERS],
    }
