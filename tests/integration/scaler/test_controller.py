"""The controller at work, on the fake API server and on a real one."""

import asyncio
from typing import Any

import pytest

from integration.scaler.support import StubSignals, scaling
from kube.cluster import Cluster, eventually
from onlinerlhf.core.errors import InvalidInput
from onlinerlhf.scaler.allocation import ROUNDS
from onlinerlhf.scaler.kinds import DEPLOYMENT, ROLLOUT_POOL
from onlinerlhf.scaler.pools import DELETION_COST

MUCH = 5_000
"""A backlog that fills every pool here to its maximum."""


def sized(cluster: Cluster, replicas: int, name: str = "rollout") -> "asyncio.Future[None]":
    """Wait until the Deployment asks for so many."""

    async def holds() -> bool:
        return await cluster.replicas(name) == replicas

    return asyncio.ensure_future(eventually(f"{name} has {replicas} replicas", holds))


async def test_a_backlog_makes_the_pool_larger_and_its_end_makes_it_smaller(
    cluster: Cluster, signals: StubSignals
) -> None:
    await cluster.deploy(replicas=1)
    await cluster.pool(minReplicas=1, maxReplicas=4, samplesPerReplica=10)
    async with scaling(cluster, signals):
        signals.backlog = MUCH
        await sized(cluster, 4)
        signals.backlog = 0
        await sized(cluster, 1)
        await eventually("the status is at the minimum", lambda: _desires(cluster, 1))
    assert await cluster.events() == [("Normal", "AtMaximum"), ("Normal", "AtMinimum")]


async def test_the_status_and_the_scale_subresource_tell_what_is_so(cluster: Cluster, signals: StubSignals) -> None:
    await cluster.deploy(replicas=1)
    await cluster.pool(maxReplicas=2, samplesPerReplica=10)
    signals.backlog = 10 * 2 * ROUNDS
    async with scaling(cluster, signals):
        await eventually("two are desired", lambda: _desires(cluster, 2))
        await eventually("there are two pods", lambda: _has_pods(cluster, 2))
        status = await cluster.status()
        scale = await cluster.kube.get(ROLLOUT_POOL, "default", subresource="scale")
    assert status["mode"] == "Automatic"
    assert (status["backlog"], status["reason"], status["learnerVersion"]) == (10 * 2 * ROUNDS, "Backlog", 7)
    assert status["observedGeneration"] == 1 and status["selector"] == "app=rollout"
    assert status["lastScaleTime"].endswith("Z")
    assert {each["type"]: each["status"] for each in status["conditions"] if each["type"] != "Ready"} == {
        "Degraded": "False",
        "ScalingLimited": "False",
    }
    assert all(each["lastTransitionTime"] and each["observedGeneration"] == 1 for each in status["conditions"])
    assert scale["status"] == {"replicas": 2, "selector": "app=rollout"}


async def test_a_bound_that_keeps_the_pool_small_is_a_condition(cluster: Cluster, signals: StubSignals) -> None:
    await cluster.deploy()
    await cluster.pool(maxReplicas=2, samplesPerReplica=10)
    signals.backlog = MUCH
    async with scaling(cluster, signals):
        await sized(cluster, 2)
        await eventually("ScalingLimited", lambda: _is(cluster, "ScalingLimited", "True", "AtMaximum"))


async def test_kubectl_scale_fixes_the_size_and_removing_it_frees_the_pool(
    cluster: Cluster, signals: StubSignals
) -> None:
    await cluster.deploy()
    await cluster.pool(samplesPerReplica=10)
    async with scaling(cluster, signals):
        await cluster.kube.patch(ROLLOUT_POOL, "default", {"spec": {"replicas": 5}}, subresource="scale")
        await sized(cluster, 5)
        await eventually("the mode is Fixed", lambda: _mode(cluster, "Fixed"))
        await cluster.edit(replicas=None)
        await sized(cluster, 1)
        await eventually("the mode is Automatic", lambda: _mode(cluster, "Automatic"))


async def test_a_fixed_size_of_nothing_is_nothing(cluster: Cluster, signals: StubSignals) -> None:
    await cluster.deploy(replicas=2)
    await cluster.pool(minReplicas=1, replicas=0)
    async with scaling(cluster, signals):
        await sized(cluster, 0)
        await cluster.edit(replicas=3)
        await sized(cluster, 3)


async def test_a_paused_pool_is_left_alone_and_still_reported(cluster: Cluster, signals: StubSignals) -> None:
    await cluster.deploy(replicas=2)
    await cluster.pool(paused=True, samplesPerReplica=10)
    signals.backlog = MUCH
    async with scaling(cluster, signals):
        await eventually("the mode is Paused", lambda: _mode(cluster, "Paused"))
        await asyncio.sleep(0.5)
        assert await cluster.replicas() == 2
        await cluster.edit(paused=False)
        await sized(cluster, 8)


async def test_a_size_that_somebody_else_sets_is_set_right(cluster: Cluster, signals: StubSignals) -> None:
    await cluster.deploy()
    await cluster.pool()
    async with scaling(cluster, signals, poll_seconds=3.0):
        await eventually("one is desired", lambda: _desires(cluster, 1))
        await cluster.kube.patch(DEPLOYMENT, "rollout", {"spec": {"replicas": 4}}, subresource="scale")
        # Before the next poll: the watch has told. Then they have been without work for a poll.
        await eventually("three are cordoned", lambda: _cordons(signals, 3), seconds=2.5)
        await eventually("one replica again", lambda: _asks_for(cluster, 1), seconds=8)


async def test_a_pool_without_a_deployment_has_a_condition_until_there_is_one(
    cluster: Cluster, signals: StubSignals
) -> None:
    await cluster.pool(maxReplicas=3, samplesPerReplica=10)
    async with scaling(cluster, signals) as replica:
        await eventually("Degraded", lambda: _is(cluster, "Degraded", "True", "DeploymentMissing"))
        assert await cluster.condition("Ready") == ("False", "DeploymentMissing")
        assert replica.health.ready()
        await asyncio.sleep(0.5)
        assert (await cluster.events()).count(("Warning", "DeploymentMissing")) == 1
        signals.backlog = MUCH
        await cluster.deploy()
        await sized(cluster, 3)
        await eventually("not degraded", lambda: _is(cluster, "Degraded", "False", "AsExpected"))
    assert ("Normal", "Recovered") in await cluster.events()


async def test_of_two_pools_with_one_deployment_the_older_has_it(cluster: Cluster, signals: StubSignals) -> None:
    await cluster.deploy()
    await cluster.pool("b-older", samplesPerReplica=10, maxReplicas=3)
    await asyncio.sleep(1.1)  # Creation times are in whole seconds.
    await cluster.pool("a-younger", minReplicas=7, maxReplicas=8)
    signals.backlog = MUCH
    async with scaling(cluster, signals):
        await sized(cluster, 3)

        async def taken() -> bool:
            return await cluster.condition("Degraded", "a-younger") == ("True", "DeploymentTaken")

        await eventually("the younger is degraded", taken)
        await asyncio.sleep(0.5)
        assert await cluster.replicas() == 3
        await cluster.kube.delete(ROLLOUT_POOL, "b-older")
        await sized(cluster, 8)


async def test_two_pools_share_the_work_by_priority(cluster: Cluster, signals: StubSignals) -> None:
    await cluster.deploy("own")
    await cluster.deploy("spot")
    await cluster.pool("own", deploymentName="own", priority=10, maxReplicas=2, samplesPerReplica=10)
    await cluster.pool("spot", deploymentName="spot", minReplicas=0, maxReplicas=3, samplesPerReplica=10)
    async with scaling(cluster, signals):
        await sized(cluster, 0, "spot")
        signals.backlog = MUCH
        await sized(cluster, 2, "own")
        await sized(cluster, 3, "spot")


async def test_before_it_shrinks_each_pod_is_marked_with_its_work(cluster: Cluster, signals: StubSignals) -> None:
    await cluster.deploy(replicas=3)
    await cluster.pool(minReplicas=2, maxReplicas=3, samplesPerReplica=10)
    signals.backlog = MUCH
    async with scaling(cluster, signals):
        await eventually("three pods", lambda: _has_pods(cluster, 3))
        names = sorted(pod["metadata"]["name"] for pod in await cluster.pods())
        signals.users = {names[0]: 2}
        signals.in_hand = {names[0]: 4, names[2]: 3}
        signals.backlog = 7
        await sized(cluster, 2)
        await eventually("two pods", lambda: _has_pods(cluster, 2))
        kept = {pod["metadata"]["name"]: pod["metadata"]["annotations"][DELETION_COST] for pod in await cluster.pods()}
    assert kept == {names[0]: "6", names[2]: "3"}


async def test_a_new_scaler_does_not_shrink_before_it_has_watched_for_a_while(
    cluster: Cluster, signals: StubSignals
) -> None:
    await cluster.deploy(replicas=4)
    await cluster.pool(scaleDownSeconds=3600)
    async with scaling(cluster, signals) as first:
        await eventually("a status", lambda: _desires(cluster, 4))
        await first.end()
    async with scaling(cluster, signals, identity="scaler-b"):
        await asyncio.sleep(1.0)
        assert await cluster.replicas() == 4
        assert (await cluster.status())["reason"] == "Stabilizing"


@pytest.mark.parametrize(
    "spec",
    [
        {"maxReplicas": -1},
        {"minReplicas": 3, "maxReplicas": 2},
        {"maxReplicas": 0},
        {"maxReplicas": 2.5},
        {"maxReplicas": "4"},
        {"replicas": -1},
        {"deploymentName": ""},
        {"deploymentName": None},
        {"samplesPerReplica": 0},
        {"scaleDownSeconds": -5},
    ],
)
async def test_nonsense_is_refused_by_the_api_server(cluster: Cluster, spec: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        await cluster.pool(**spec)


async def test_a_pool_keeps_its_deployment_and_refuses_a_negative_scale(cluster: Cluster) -> None:
    await cluster.pool()
    with pytest.raises(InvalidInput, match="cannot be changed"):
        await cluster.edit(deploymentName="another")
    with pytest.raises(InvalidInput):
        await cluster.kube.patch(ROLLOUT_POOL, "default", {"spec": {"replicas": -1}}, subresource="scale")


async def _desires(cluster: Cluster, replicas: int) -> bool:
    return (await cluster.status()).get("desiredReplicas") == replicas


async def _asks_for(cluster: Cluster, replicas: int) -> bool:
    return await cluster.replicas() == replicas


async def _cordons(signals: StubSignals, count: int) -> bool:
    return len(signals.cordoned) >= count


async def _has_pods(cluster: Cluster, count: int) -> bool:
    return len(await cluster.pods()) == count == (await cluster.status()).get("replicas")


async def _mode(cluster: Cluster, mode: str) -> bool:
    return (await cluster.status()).get("mode") == mode


async def _is(cluster: Cluster, type_: str, status: str, reason: str) -> bool:
    return await cluster.condition(type_) == (status, reason)
