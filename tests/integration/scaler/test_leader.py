"""Two scalers, one acts: whatever happens to the one, and whatever the clocks say."""

import asyncio
import time

import pytest

from integration.scaler.support import FAST, StubSignals, scaling
from kube.cluster import Cluster, eventually
from onlinerlhf.scaler.config import ScalerConfig
from onlinerlhf.scaler.kinds import LEASE
from onlinerlhf.scaler.kube import Json, Kube
from onlinerlhf.scaler.leader import Leader, LeaseLost


async def until_held(cluster: Cluster, holder: str, *, seconds: float = 15) -> None:
    async def holds() -> bool:
        return await cluster.holder() == holder

    await eventually(f"the lease is {holder or 'nobody'}'s", holds, seconds=seconds)


async def test_of_two_scalers_one_acts_and_the_other_is_healthy(cluster: Cluster, signals: StubSignals) -> None:
    await cluster.deploy()
    await cluster.pool(maxReplicas=3)
    other = StubSignals()
    async with scaling(cluster, signals, identity="a") as first:
        await until_held(cluster, "a")
        async with scaling(cluster, other, identity="b") as second:
            signals.backlog = 5_000
            await eventually("three replicas", lambda: _asks_for(cluster, 3))
            await asyncio.sleep(1.0)
            # The follower sees no backlog; had it acted, the pool would have shrunk.
            assert await cluster.replicas() == 3
            assert await cluster.holder() == "a"
            assert second.health.ready() and second.health.alive
            assert not first.task.done() and not second.task.done()


async def test_a_scaler_that_ends_lets_go_and_the_other_follows_at_once(cluster: Cluster, signals: StubSignals) -> None:
    async with scaling(cluster, signals, identity="a", lease_seconds=60, renew_seconds=40) as first:
        await until_held(cluster, "a")
        async with scaling(cluster, signals, identity="b", lease_seconds=60, renew_seconds=40):
            await first.end()
            await until_held(cluster, "b", seconds=5)
    lease = await cluster.kube.get(LEASE, "onlinerlhf-scaler")
    assert lease["spec"]["leaseTransitions"] == 1


async def test_a_scaler_that_is_killed_is_followed_when_its_lease_has_run_out(
    cluster: Cluster, signals: StubSignals
) -> None:
    lease = {"lease_seconds": 1.0, "renew_seconds": 0.8} if cluster.fake else {}
    async with scaling(cluster, signals, identity="a", **lease) as first:
        await until_held(cluster, "a")
        async with scaling(cluster, signals, identity="b", **lease):
            await asyncio.sleep(0.3)
            await first.kill()
            started = time.monotonic()
            assert await cluster.holder() == "a"
            await until_held(cluster, "b")
            if cluster.fake:
                assert 0.3 < time.monotonic() - started < 5.0


async def test_a_lease_that_another_takes_ends_the_scaler(cluster: Cluster, signals: StubSignals) -> None:
    async with scaling(cluster, signals, identity="a") as first:
        await until_held(cluster, "a")
        await cluster.kube.patch(LEASE, "onlinerlhf-scaler", {"spec": {"holderIdentity": "thief"}})
        await asyncio.wait([first.task], timeout=10)
        error = first.task.exception()
        assert isinstance(error, ExceptionGroup) and error.subgroup(LeaseLost)
        assert await cluster.holder() == "thief"


async def test_a_lease_that_cannot_be_renewed_ends_the_scaler_before_another_may_act(
    faulty: Cluster, signals: StubSignals
) -> None:
    await faulty.deploy()
    await faulty.pool(maxReplicas=3)
    async with scaling(faulty, signals, identity="a", lease_seconds=4.0, renew_seconds=1.0) as first:
        await until_held(faulty, "a")
        faulty.api.fail_next(None, 500, resource="leases")
        started = time.monotonic()
        await asyncio.wait([first.task], timeout=10)
        assert 0.5 < time.monotonic() - started < 3.0
        error = first.task.exception()
        assert isinstance(error, ExceptionGroup) and error.subgroup(LeaseLost)
        signals.backlog = 5_000
        await asyncio.sleep(0.5)
        assert await faulty.replicas() == 1


async def test_an_api_server_that_hangs_ends_the_scaler_too(faulty: Cluster, signals: StubSignals) -> None:
    async with scaling(faulty, signals, identity="a", lease_seconds=4.0, renew_seconds=1.0) as first:
        await until_held(faulty, "a")
        with faulty.api.silence():
            await asyncio.wait([first.task], timeout=5)
        error = first.task.exception()
        assert isinstance(error, ExceptionGroup) and error.subgroup(LeaseLost)


async def test_short_trouble_with_the_lease_is_no_loss(faulty: Cluster, signals: StubSignals) -> None:
    async with scaling(faulty, signals, identity="a", lease_seconds=6.0, renew_seconds=5.0) as first:
        await until_held(faulty, "a")
        faulty.api.fail_next(2, 409, resource="leases", verb="update")
        faulty.api.fail_next(1, 429, retry_after=1, resource="leases", verb="get")
        await asyncio.sleep(2.5)
        assert not first.task.done()
        assert await faulty.holder() == "a"


async def test_the_holders_clock_says_nothing(faulty: Cluster) -> None:
    # Renewed an hour ago by its own account, and an hour ahead: what counts is that it is being renewed.
    for renewed in ("2020-01-01T00:00:00.000000Z", "2100-01-01T00:00:00.000000Z"):
        async with await Kube.connect(faulty.kubeconfig) as kube:
            await _lease(faulty, renewed)
            leader, stop = Leader(kube, ScalerConfig(**FAST), identity="b"), asyncio.Event()  # type: ignore[arg-type]
            started = time.monotonic()
            assert await asyncio.wait_for(leader.acquire(stop), 10)
            # It stood still for its second, as seen from here, and not longer.
            assert 0.9 < time.monotonic() - started < 4.0
        await faulty.kube.delete(LEASE, "onlinerlhf-scaler")


async def test_of_candidates_that_come_at_once_one_leads(faulty: Cluster) -> None:
    async with await Kube.connect(faulty.kubeconfig) as kube:
        config, stop = ScalerConfig(**FAST), asyncio.Event()  # type: ignore[arg-type]
        leaders = [Leader(kube, config, identity=f"c{number}") for number in range(8)]
        tasks = [asyncio.create_task(leader.acquire(stop)) for leader in leaders]
        done, _ = await asyncio.wait(tasks, timeout=0.6)
        assert len(done) == 1
        stop.set()
        assert sorted([await task for task in tasks]) == [False] * 7 + [True]
        assert sum(leader.remaining_seconds > 0 for leader in leaders) <= 1


async def test_a_candidate_that_is_told_to_stop_stops(faulty: Cluster) -> None:
    async with await Kube.connect(faulty.kubeconfig) as kube:
        await _lease(faulty, "2026-01-01T00:00:00.000000Z")
        config = ScalerConfig(poll_seconds=1, lease_seconds=60, renew_seconds=40, retry_seconds=30)
        leader, stop = Leader(kube, config, identity="b"), asyncio.Event()
        task = asyncio.create_task(leader.acquire(stop))
        await asyncio.sleep(0.1)
        stop.set()
        assert await asyncio.wait_for(task, 2) is False
        await leader.release()
        assert await faulty.holder() == "a"


def test_renewing_must_be_given_up_before_the_lease_ends() -> None:
    with pytest.raises(ValueError, match="lease_seconds"):
        ScalerConfig(lease_seconds=5, renew_seconds=5, retry_seconds=1)


async def _lease(cluster: Cluster, renewed: str) -> Json:
    spec = {"holderIdentity": "a", "leaseDurationSeconds": 1, "acquireTime": renewed, "renewTime": renewed}
    body = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": {"name": "onlinerlhf-scaler"}}
    return await cluster.kube.create(LEASE, body | {"spec": spec})


async def _asks_for(cluster: Cluster, replicas: int) -> bool:
    return await cluster.replicas() == replicas
