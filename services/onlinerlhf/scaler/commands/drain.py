"""`onlinerlhf k8s drain`: take a pod, or a whole pool, out without losing work."""

import click

from onlinerlhf.core.errors import InvalidInput, LimitReached, NotFound
from onlinerlhf.scaler.commands.cluster import Cluster, Object, Place, connected
from onlinerlhf.scaler.commands.kinds import OURS, STATEFUL_SET
from onlinerlhf.scaler.commands.pools import pick_pool
from onlinerlhf.scaler.commands.readiness import belongs
from onlinerlhf.scaler.commands.rollout import workloads_of
from onlinerlhf.scaler.commands.sizes import scale
from onlinerlhf.scaler.commands.waiting import Patience
from onlinerlhf.scaler.kinds import DEPLOYMENT, POD


async def drain_pool(place: Place, *, pool_name: str, wait_seconds: float) -> None:
    """Fix the size at 0 and wait until no pod is left."""
    async with connected(place) as cluster:
        pool = await pick_pool(cluster, pool_name)
    if pool.is_paused:
        raise InvalidInput(
            f"pool {pool.name} is paused, so it keeps its pods: `onlinerlhf k8s resume --pool {pool.name}`"
        )
    await scale(place, replicas=0, pool_name=pool.name, wait_seconds=wait_seconds)
    click.echo(f"{pool.name}: empty; `onlinerlhf k8s scale auto --pool {pool.name}` opens it again")


async def drain_pod(place: Place, *, name: str, wait_seconds: float) -> None:
    """Evict a pod as the disruption budget allows, wait until it is gone and its workload is whole again."""
    async with connected(place) as cluster:
        pod = await _our_pod(cluster, name)
        patience = Patience(seconds=wait_seconds)
        await _evict(cluster, pod, patience)
        grace = int(pod["spec"].get("terminationGracePeriodSeconds") or 30)
        click.echo(f"{name}: evicted; it finishes or hands back its work, within {grace} s")
        took = await _until_gone(cluster, pod, patience)
        late = "; its grace was over, and what it still held is delivered again" if took >= grace else ""
        click.echo(f"{name}: gone after {took:.0f} s{late}")
        await _until_whole(cluster, pod, patience)


async def _our_pod(cluster: Cluster, name: str) -> Object:
    pod = await cluster.find(POD, name)
    if pod is None:
        there = sorted(each["metadata"]["name"] for each in await cluster.items(POD, labels=OURS))
        listed = f"there are: {', '.join(there)}" if there else "it has no pods of the platform; -n names another"
        raise NotFound(f"no pod {name!r} in namespace {cluster.namespace}; {listed}")
    return pod


async def _evict(cluster: Cluster, pod: Object, patience: Patience) -> None:
    """429: the budget does not allow it now; others are being replaced."""
    meta = pod["metadata"]
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": meta["name"], "namespace": cluster.namespace},
        "deleteOptions": {"preconditions": {"uid": meta["uid"]}},
    }

    async def look() -> str:
        try:
            await cluster.create(POD, eviction, name=meta["name"], subresource="eviction")
        except LimitReached as error:
            return f"the disruption budget: {error}"
        except NotFound:
            return ""
        return ""

    if meta.get("deletionTimestamp"):
        click.echo(f"{meta['name']}: is on its way out already")
        return
    await patience.until(look, what=f"eviction of {meta['name']}")


async def _until_gone(cluster: Cluster, pod: Object, patience: Patience) -> float:
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]

    async def look() -> str:
        there = await cluster.find(POD, name)
        if there is None or there["metadata"]["uid"] != uid:
            return ""
        return f"{name} to end"

    return await patience.until(look, what=f"end of {name}")


async def _until_whole(cluster: Cluster, pod: Object, patience: Patience) -> None:
    """What the pod belonged to has all its replicas ready again; fewer of them, if it was shrunk meanwhile."""
    owner = await _owner(cluster, pod)
    if owner is None:
        return

    async def look() -> str:
        (workload,) = await workloads_of(cluster, [owner])
        return "" if workload.is_done else f"{workload.label} {workload.state} ready"

    label = f"{owner['kind'].lower()}/{owner['metadata']['name']}"
    took = await patience.until(look, what=label)
    click.echo(f"{label}: whole again after {took:.0f} s")


async def _owner(cluster: Cluster, pod: Object) -> Object | None:
    for kind in (DEPLOYMENT, STATEFUL_SET):
        for each in await cluster.items(kind, labels=OURS):
            if belongs(pod, each):
                return {**each, "kind": kind.kind}
    return None
