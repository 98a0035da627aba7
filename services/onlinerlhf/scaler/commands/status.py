"""`onlinerlhf k8s status`: pools, why they have their size, and whether everything else is ready."""

import asyncio
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.live import Live

from onlinerlhf.core.errors import NotFound, Unavailable
from onlinerlhf.scaler.commands.cluster import Cluster, Object, Place, connected
from onlinerlhf.scaler.commands.kinds import COMPONENT_LABEL, OURS, STATEFUL_SET
from onlinerlhf.scaler.commands.leadership import Leadership, read_leadership
from onlinerlhf.scaler.commands.picture import as_picture
from onlinerlhf.scaler.commands.pools import Pool, read_pools
from onlinerlhf.scaler.commands.readiness import Workload, workload_of
from onlinerlhf.scaler.commands.rollout import missing
from onlinerlhf.scaler.kinds import DEPLOYMENT

WATCH_SECONDS: Final = 2.0
WIDTH: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The platform in one namespace, at one moment."""

    namespace: str
    now: datetime
    pools: tuple[Pool, ...]
    leadership: Leadership
    workloads: tuple[tuple[str, Workload], ...]
    """Component and workload."""
    waits: tuple[str, ...]
    """A line for each pod that is not ready."""


async def show(place: Place, *, json_output: bool, is_watching: bool) -> None:
    """Print it once, or again and again until Ctrl-C."""
    async with connected(place) as cluster:
        if is_watching:
            await _watch(cluster)
            return
        overview = await read_overview(cluster)
    if json_output:
        print(json.dumps(as_json(overview), indent=2))
    else:
        _console().print(as_picture(**_parts(overview)))


async def read_overview(cluster: Cluster) -> Overview:
    """Raises NotFound where nothing of the platform is in the namespace."""
    workloads: list[Object] = []
    for kind in (DEPLOYMENT, STATEFUL_SET):
        workloads.extend({**each, "kind": kind.kind} for each in await cluster.items(kind, labels=OURS))
    if not workloads:
        advice = "-n names another, `onlinerlhf k8s install` installs it"
        raise NotFound(f"namespace {cluster.namespace} holds nothing of the platform; {advice}")
    try:
        pools = await read_pools(cluster)
    except NotFound:
        # Where KEDA or nobody sizes the workers there need be no such kind.
        pools = []
    leadership = await read_leadership(cluster)
    read = [(_component(each), workload_of(each)) for each in workloads]
    late = [each for each, (_, workload) in zip(workloads, read, strict=True) if not workload.is_done]
    waits = await missing(cluster, late) if late else []
    return Overview(
        namespace=cluster.namespace,
        now=cluster.now,
        pools=tuple(pools),
        leadership=leadership,
        workloads=tuple(sorted(read, key=lambda each: (each[0], each[1].name))),
        waits=tuple(waits),
    )


def as_json(overview: Overview) -> dict[str, Any]:
    """For programs. `scaler.is_current` false: what the pools' status says may be long past."""
    leadership = overview.leadership
    return {
        "namespace": overview.namespace,
        "time": overview.now.isoformat(),
        "scaler": {
            "is_current": leadership.is_current,
            "holder": leadership.holder,
            "silent_seconds": leadership.age_seconds,
        },
        "pools": [_pool_json(pool, overview.now) for pool in overview.pools],
        "workloads": [
            {"component": component, "kind": each.kind, "name": each.name, "wanted": each.wanted, "ready": each.ready,
             "is_done": each.is_done}
            for component, each in overview.workloads
        ],
        "waits": list(overview.waits),
    }  # fmt: skip


def _pool_json(pool: Pool, now: datetime) -> dict[str, Any]:
    scaled = pool.last_scaled
    since = None if scaled is None else (now - scaled).total_seconds()
    known = asdict(pool) | {"last_scaled": None if scaled is None else scaled.isoformat()}
    return known | {"mode": pool.mode, "is_seen": pool.is_seen, "seconds_since_scaled": since}


async def _watch(cluster: Cluster) -> None:
    """An API server that is away for a moment leaves the picture as it was, with a line that says so."""
    with Live(console=_console(), screen=False, auto_refresh=False) as live:
        shown: dict[str, Any] | None = None
        while True:
            try:
                shown = _parts(await read_overview(cluster))
                live.update(as_picture(**shown), refresh=True)
            except Unavailable as error:
                if shown is None:
                    raise
                live.update(as_picture(**shown, trouble=f"not current: {error}"), refresh=True)
            await asyncio.sleep(WATCH_SECONDS)


def _console() -> Console:
    """As wide as the terminal; a pipe has no width, and nothing is to be cut off there."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def _parts(overview: Overview) -> dict[str, Any]:
    return {
        "pools": overview.pools,
        "leadership": overview.leadership,
        "workloads": overview.workloads,
        "waits": overview.waits,
        "now": overview.now,
    }


def _component(thing: Object) -> str:
    return str((thing["metadata"].get("labels") or {}).get(COMPONENT_LABEL, ""))
