"""Workloads and their pods as the cluster has them, and what those that are not ready wait for."""

from collections.abc import Sequence

from onlinerlhf.scaler.commands.cluster import Cluster, Object
from onlinerlhf.scaler.commands.kinds import JOB, STATEFUL_SET
from onlinerlhf.scaler.commands.readiness import Workload, belongs, newest_warning, waits_for, workload_of
from onlinerlhf.scaler.kinds import DEPLOYMENT, EVENT, POD, Kind

KINDS: dict[str, Kind] = {kind.kind: kind for kind in (DEPLOYMENT, STATEFUL_SET, JOB)}


async def workloads_of(cluster: Cluster, wanted: Sequence[Object]) -> list[Workload]:
    """How far each is; one that is not there yet is at nothing."""
    found = []
    for thing in wanted:
        name = thing["metadata"]["name"]
        there = await cluster.find(KINDS[thing["kind"]], name)
        # A finished Job may be tidied away before anybody looks.
        is_tidy = (thing.get("spec") or {}).get("ttlSecondsAfterFinished") is not None
        absent = Workload(kind=thing["kind"], name=name, wanted=1, ready=0, is_done=is_tidy)
        found.append(absent if there is None else workload_of({**there, "kind": thing["kind"]}))
    return found


async def missing(cluster: Cluster, wanted: Sequence[Object]) -> list[str]:
    """A line for each pod that is not ready, and for each workload that cannot make pods."""
    pods = await cluster.items(POD)
    events = await cluster.items(EVENT)
    lines = []
    for thing in wanted:
        name = thing["metadata"]["name"]
        there = await cluster.find(KINDS[thing["kind"]], name)
        if there is None:
            lines.append(f"{thing['kind'].lower()}/{name} does not exist")
            continue
        workload = workload_of({**there, "kind": thing["kind"]})
        if workload.is_done:
            continue
        own = [pod for pod in pods if belongs(pod, there)]
        waiting = [(pod["metadata"]["name"], waits_for(pod, events)) for pod in own]
        said = [f"pod/{pod} waits for {reason}" for pod, reason in waiting if reason]
        if not own or workload.problem:
            reason = workload.problem or newest_warning(events, name) or "it has no pods yet"
            said.insert(0, f"{workload.label}: {reason}")
        lines.extend(said or [f"{workload.label} {workload.state}: its rollout goes on"])
    return lines
