"""`onlinerlhf k8s scale`, `pause` and `resume`: an operator's wishes in a RolloutPool, and what comes of them."""

from collections.abc import Mapping
from typing import Final

import click

from onlinerlhf.core.errors import InvalidInput, StartupError
from onlinerlhf.scaler.commands.cluster import Cluster, Place, connected
from onlinerlhf.scaler.commands.leadership import read_leadership
from onlinerlhf.scaler.commands.pools import Pool, pick_pool, pool_of
from onlinerlhf.scaler.commands.waiting import Patience
from onlinerlhf.scaler.kinds import ROLLOUT_POOL

SEEN_SECONDS: Final = 60.0


async def scale(place: Place, *, replicas: int | None, pool_name: str | None, wait_seconds: float | None) -> None:
    """Fix a pool's size, or (None) let the scaler choose it again; wait until that has come about."""
    async with connected(place) as cluster:
        pool = await pick_pool(cluster, pool_name)
        changed = await _write(cluster, pool, {"replicas": replicas})
        if replicas is None:
            range_ = f"{changed.min_replicas} to {changed.max_replicas} replicas"
            click.echo(
                f"{pool.name}: was {pool.mode}; the scaler chooses from {range_} as backlog, users and learner ask"
            )
        else:
            click.echo(f"{pool.name}: was {pool.mode}; fixed at {replicas} until `onlinerlhf k8s scale auto`")
            click.echo("  a pod that has to go finishes or hands back its work first")
        if changed.is_paused:
            click.echo(f"  the pool is paused: nothing changes until `onlinerlhf k8s resume --pool {pool.name}`")
        elif wait_seconds is not None:
            await wait_for_size(cluster, pool.name, replicas, wait_seconds)


async def pause(place: Place, *, pool_name: str | None, is_paused: bool) -> None:
    """Stop the scaler from touching a pool, or let it again."""
    async with connected(place) as cluster:
        pool = await pick_pool(cluster, pool_name)
        if pool.is_paused is is_paused:
            click.echo(f"{pool.name}: is {'paused' if is_paused else 'not paused'} already ({pool.mode})")
            return
        changed = await _write(cluster, pool, {"paused": is_paused})
        if is_paused:
            held = "" if pool.current is None else f" ({pool.current})"
            click.echo(f"{pool.name}: paused; it keeps its size{held} whatever comes, until `onlinerlhf k8s resume`")
        else:
            click.echo(f"{pool.name}: resumed as {changed.mode}; the scaler acts at its next look")
        await wait_for_size(cluster, pool.name, None, SEEN_SECONDS)


async def wait_for_size(cluster: Cluster, name: str, replicas: int | None, seconds: float) -> None:
    """Until the scaler has seen the wish, and all replicas of a fixed size are ready and no others left."""
    leadership = await read_leadership(cluster)
    if not leadership.is_current:
        raise StartupError(f"the wish is written, but {leadership.words}")

    async def look() -> str:
        pool = pool_of(await cluster.get(ROLLOUT_POOL, name))
        if not pool.is_seen:
            return "the scaler to see the change"
        if replicas is None:
            return ""
        if pool.fixed_replicas != replicas:
            raise InvalidInput(f"somebody else has made pool {name} {pool.mode} in the meantime")
        if (pool.current, pool.ready) == (replicas, replicas):
            return ""
        why = "; ".join(f"{each.type}: {each.message or each.reason}" for each in pool.troubles)
        return f"{pool.ready or 0} ready of {pool.current or 0}, wanted {replicas}" + (f" ({why})" if why else "")

    took = await Patience(seconds=seconds).until(look, what=f"pool {name}")
    pool = pool_of(await cluster.get(ROLLOUT_POOL, name))
    click.echo(f"{name}: done after {took:.0f} s; {pool.reason}: {pool.message}".rstrip(": "))


async def _write(cluster: Cluster, pool: Pool, spec: Mapping[str, object]) -> Pool:
    """One field. The API server refuses what the pool's schema does not allow, and says why."""
    return pool_of(await cluster.patch(ROLLOUT_POOL, pool.name, {"spec": dict(spec)}))
