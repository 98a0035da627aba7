"""The controller while things fail: the last size holds, and the status says why. On the fake API server alone."""

import asyncio
import math
import random
import time
from typing import Any

import pytest

from integration.scaler.support import StubSignals, scaling
from kube.cluster import Cluster, eventually
from kube.patches import merged
from onlinerlhf.scaler import metrics
from onlinerlhf.scaler.kinds import DEPLOYMENT, ROLLOUT_POOL
from onlinerlhf.scaler.verbs import RBAC

MUCH = 5_000


async def until_sized(cluster: Cluster, replicas: int, *, seconds: float = 15) -> None:
    async def holds() -> bool:
        return bool(cluster.api.get("Deployment", "rollout")["spec"].get("replicas", 0) == replicas)

    await eventually(f"{replicas} replicas", holds, seconds=seconds)


async def until_condition(cluster: Cluster, type_: str, status: str, reason: str) -> None:
    async def holds() -> bool:
        return await cluster.condition(type_) == (status, reason)

    await eventually(f"{type_} is {status} for {reason}", holds)


def errors(kind: str) -> float:
    return metrics.ERRORS.labels(kind)._value.get()  # type: ignore[no-any-return, unused-ignore]


async def test_without_redis_the_size_holds_and_the_pool_is_degraded(faulty: Cluster, signals: StubSignals) -> None:
    await faulty.deploy()
    await faulty.pool(maxReplicas=4)
    signals.backlog = MUCH
    async with scaling(faulty, signals) as replica:
        await until_sized(faulty, 4)
        signals.backlog, signals.away = 0, True
        await until_condition(faulty, "Degraded", "True", "SignalsMissing")
        await asyncio.sleep(0.5)
        status = await faulty.status()
        assert status["desiredReplicas"] == 4 and status["reason"] == "Holding"
        assert "backlog" not in status
        assert math.isnan(metrics.BACKLOG._value.get())
        assert not replica.health.ready()
        await until_sized(faulty, 4)
        signals.away = False
        await until_sized(faulty, 1)
        await until_condition(faulty, "Degraded", "False", "AsExpected")
        assert replica.health.ready()
    assert (await faulty.events()).count(("Warning", "SignalsMissing")) == 1


async def test_signals_that_hang_are_given_up(
    faulty: Cluster, signals: StubSignals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onlinerlhf.scaler.reading.SIGNAL_SECONDS", 0.2)

    async def never(*_: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(signals, "pipeline", never)
    await faulty.deploy(replicas=3)
    await faulty.pool()
    async with scaling(faulty, signals):
        await until_condition(faulty, "Degraded", "True", "SignalsMissing")
        assert await faulty.replicas() == 3


async def test_without_the_api_server_the_size_holds_and_work_goes_on_when_it_is_back(
    faulty: Cluster, signals: StubSignals
) -> None:
    await faulty.deploy()
    await faulty.pool(maxReplicas=4)
    # A lease that outlives the outage.
    async with scaling(faulty, signals, lease_seconds=8, renew_seconds=6) as replica:
        await until_condition(faulty, "Degraded", "False", "AsExpected")
        signals.backlog = MUCH
        with faulty.api.outage():
            await eventually("the scaler notices", lambda: _not_ready(replica.health))
            await asyncio.sleep(0.5)
        await until_sized(faulty, 4)
        await eventually("healthy again", lambda: _ready(replica.health))
        assert not replica.task.done()


async def test_a_server_error_on_one_deployment_leaves_the_other_pool_its_scaler(
    faulty: Cluster, signals: StubSignals
) -> None:
    await faulty.deploy()
    await faulty.pool(maxReplicas=3)
    faulty.api.fail_next(3, 500, verb="get", resource="deployments", subresource="scale")
    signals.backlog = MUCH
    async with scaling(faulty, signals):
        await until_sized(faulty, 3)
    assert ("Warning", "ApiServerTrouble") in await faulty.events()


async def test_a_pool_that_cannot_be_read_keeps_its_share_of_the_work(faulty: Cluster, signals: StubSignals) -> None:
    await faulty.deploy()
    await faulty.deploy("spot", replicas=0)
    await faulty.pool(minReplicas=0, maxReplicas=4, priority=1, samplesPerReplica=1_000)
    await faulty.pool("spot", deploymentName="spot", minReplicas=0, maxReplicas=8, samplesPerReplica=1_000)
    signals.backlog = 900
    async with scaling(faulty, signals):
        await until_condition(faulty, "Ready", "True", "PodsReady")
        faulty.api.fail_next(None, 503, resource="deployments", subresource="scale", verb="get", name="rollout")
        await until_condition(faulty, "Degraded", "True", "ApiServerTrouble")
        await asyncio.sleep(0.5)
        assert (await faulty.replicas("spot"), await faulty.replicas("rollout")) == (0, 1)


async def test_after_any_mixture_of_trouble_it_is_where_it_should_be(faulty: Cluster, signals: StubSignals) -> None:
    chance = random.Random(7)
    await faulty.deploy()
    await faulty.pool(maxReplicas=4)
    async with scaling(faulty, signals, lease_seconds=30, renew_seconds=20) as replica:
        for _ in range(40):
            signals.backlog, signals.away = chance.choice([0, 3, MUCH]), chance.random() < 0.2
            match chance.randrange(5):
                case 0:
                    faulty.api.fail_next(2, chance.choice([403, 409, 429, 500, 503]))
                case 1:
                    faulty.api.expire_watches()
                case 2:
                    with faulty.api.outage():
                        await asyncio.sleep(0.05)
                case 3:
                    for kind, name, key in (
                        ("Deployment", "rollout", "replicas"),
                        ("RolloutPool", "default", "priority"),
                    ):
                        change = {"spec": {key: chance.randrange(9)}}
                        faulty.api.put(merged(faulty.api.get(kind, name), change))
            await asyncio.sleep(0.05)
        faulty.api.mend()
        signals.backlog, signals.away = MUCH, False
        await until_sized(faulty, 4)
        await until_condition(faulty, "Degraded", "False", "AsExpected")
        signals.backlog = 0
        await until_sized(faulty, 1)
        assert not replica.task.done() and replica.health.alive


async def test_a_conflict_is_met_by_reading_again(faulty: Cluster, signals: StubSignals) -> None:
    await faulty.deploy()
    await faulty.pool(maxReplicas=4)
    signals.backlog, before = MUCH, errors("conflict")
    faulty.api.fail_next(2, 409, verb="patch", resource="deployments", subresource="scale")
    async with scaling(faulty, signals):
        await until_sized(faulty, 4)
        await until_condition(faulty, "Degraded", "False", "AsExpected")
    assert errors("conflict") == before + 2
    assert all(reason != "Conflict" for _, reason in await faulty.events())


async def test_a_size_is_written_only_upon_what_was_read(faulty: Cluster) -> None:
    await faulty.deploy()
    scale = await faulty.kube.get(DEPLOYMENT, "rollout", subresource="scale")
    await faulty.kube.patch(DEPLOYMENT, "rollout", {"spec": {"replicas": 6}}, subresource="scale")
    stale = {"metadata": {"resourceVersion": scale["metadata"]["resourceVersion"]}, "spec": {"replicas": 1}}
    with pytest.raises(Exception, match="has been modified"):
        await faulty.kube.patch(DEPLOYMENT, "rollout", stale, subresource="scale")
    assert await faulty.replicas() == 6


async def test_asked_to_wait_it_waits_as_long(faulty: Cluster, signals: StubSignals) -> None:
    await faulty.deploy()
    await faulty.pool(maxReplicas=4)
    signals.backlog = MUCH
    faulty.api.fail_next(1, 429, retry_after=1, resource="rolloutpools", verb="list")
    async with scaling(faulty, signals):
        await eventually("the first try", lambda: _listed(faulty, 1))
        started = time.monotonic()
        await eventually("the second try", lambda: _listed(faulty, 2))
        assert 0.9 < time.monotonic() - started < 4
        await until_sized(faulty, 4)


async def test_a_watch_whose_history_is_forgotten_begins_anew(faulty: Cluster, signals: StubSignals) -> None:
    await faulty.deploy()
    await faulty.pool(maxReplicas=4)
    before = errors("expired")
    async with scaling(faulty, signals, poll_seconds=3.0):
        await until_condition(faulty, "Degraded", "False", "AsExpected")
        await asyncio.sleep(0.3)
        faulty.api.expire_watches()
        await eventually("both watches were told", lambda: _at_least(errors, "expired", before + 2))
        await asyncio.sleep(1.2)
        await faulty.edit(replicas=2)
        # By the new watch: the next poll would be later.
        await until_sized(faulty, 2, seconds=1.5)


async def test_without_watches_it_polls(faulty: Cluster, signals: StubSignals) -> None:
    await faulty.deploy()
    await faulty.pool(maxReplicas=4)
    faulty.api.fail_next(None, 403, verb="watch")
    async with scaling(faulty, signals) as replica:
        await until_condition(faulty, "Degraded", "False", "AsExpected")
        await faulty.edit(replicas=2)
        await until_sized(faulty, 2)
        assert replica.health.ready()


async def test_a_missing_permission_is_named(faulty: Cluster, signals: StubSignals) -> None:
    await faulty.deploy()
    await faulty.pool(maxReplicas=4)
    faulty.api.fail_next(None, 403, verb="patch", resource="deployments", subresource="scale")
    signals.backlog = MUCH
    async with scaling(faulty, signals):
        await until_condition(faulty, "Degraded", "True", "Forbidden")
        conditions = {each["type"]: each for each in (await faulty.status())["conditions"]}
    assert (
        conditions["Degraded"]["message"]
        == "patch deployments/scale rollout is not allowed: no Role of this account has it"
    )
    assert await faulty.replicas() == 1


async def test_absent_replicas_are_none(faulty: Cluster, signals: StubSignals) -> None:
    await faulty.deploy(replicas=0)
    await faulty.pool(minReplicas=0, maxReplicas=3)
    thing = faulty.api.get("Deployment", "rollout")
    del thing["spec"]["replicas"]
    faulty.api.put(thing)
    async with scaling(faulty, signals):
        await until_condition(faulty, "Ready", "True", "PodsReady")
        assert (await faulty.status())["desiredReplicas"] == 0
        signals.backlog = MUCH
        await until_sized(faulty, 3)


async def test_an_object_that_slipped_past_validation_is_degraded_and_the_others_are_served(
    faulty: Cluster, signals: StubSignals
) -> None:
    await faulty.deploy()
    await faulty.pool(maxReplicas=3)
    spec = {"deploymentName": "other", "minReplicas": 5, "maxReplicas": 2}
    faulty.api.put({"kind": "RolloutPool", "metadata": {"name": "broken"}, "spec": spec})
    signals.backlog = MUCH
    async with scaling(faulty, signals):
        await until_sized(faulty, 3)

        async def told() -> bool:
            return await faulty.condition("Degraded", "broken") == ("True", "InvalidSpec")

        await eventually("the broken pool says so", told)


async def test_nothing_is_written_while_nothing_changes(faulty: Cluster, signals: StubSignals) -> None:
    await faulty.deploy()
    await faulty.pool(maxReplicas=4)
    signals.backlog = 5
    async with scaling(faulty, signals):
        await until_condition(faulty, "Ready", "True", "PodsReady")
        await asyncio.sleep(0.5)
        writes = ("patch", "create", "update")
        count = len([each for each in faulty.api.requests if each.verb in writes and each.resource != "leases"])
        for backlog in (6, 7, 8, 9, 10):
            signals.backlog = backlog
            await asyncio.sleep(0.25)
        after = [each for each in faulty.api.requests if each.verb in writes and each.resource != "leases"]
    assert len(after) == count


async def test_a_pool_that_is_deleted_is_let_go(faulty: Cluster, signals: StubSignals) -> None:
    await faulty.deploy()
    await faulty.pool(maxReplicas=4, replicas=2)
    async with scaling(faulty, signals):
        await until_sized(faulty, 2)
        await faulty.kube.delete(ROLLOUT_POOL, "default")
        await asyncio.sleep(0.6)
        await faulty.kube.patch(DEPLOYMENT, "rollout", {"spec": {"replicas": 5}}, subresource="scale")
        await asyncio.sleep(0.6)
    assert await faulty.replicas() == 5
    assert "default" not in {labels[0] for labels in metrics.DESIRED._metrics}


async def test_a_turn_that_hangs_is_given_up_and_a_loop_that_stalls_fails_liveness(
    faulty: Cluster, signals: StubSignals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onlinerlhf.scaler.controller.STALL_POLLS", 0)
    monkeypatch.setattr("onlinerlhf.scaler.controller.MAX_BACKOFF_SECONDS", 0.8)
    await faulty.deploy()
    await faulty.pool()
    async with scaling(faulty, signals, lease_seconds=20, renew_seconds=10) as replica:
        await until_condition(faulty, "Degraded", "False", "AsExpected")
        assert replica.health.alive
        with faulty.api.silence():
            await eventually("liveness fails", lambda: _dead(replica.health))
        await eventually("liveness is back", lambda: _alive(replica.health))


async def test_the_scaler_makes_the_calls_of_its_role_and_no_others(cluster: Cluster, signals: StubSignals) -> None:
    if cluster.fake is None:
        pytest.skip("a real API server does not tell which calls were made")
    await cluster.deploy()
    await cluster.pool(maxReplicas=4)
    cluster.fake.requests.clear()
    async with scaling(cluster, signals) as replica:
        signals.backlog = MUCH
        await until_sized(cluster, 4)
        await eventually("four pods", lambda: _four_pods(cluster))
        cluster.fake.requests.clear()
        pods = [pod["metadata"]["name"] for pod in cluster.fake.objects("Pod")]
        signals.backlog, signals.in_hand = 3, {pods[0]: 3}
        await until_sized(cluster, 1)
        await replica.end()
        first = cluster.fake.calls()
    allowed = {(group, resource, verb) for group, resource, verbs in RBAC for verb in verbs}
    assert first <= allowed
    cluster.fake.requests.clear()
    async with scaling(cluster, signals, identity="scaler-b", lease_name="another") as replica:
        await asyncio.sleep(0.5)
        await replica.end()
    assert first | cluster.fake.calls() == allowed


async def _four_pods(cluster: Cluster) -> bool:
    return len(cluster.api.objects("Pod")) == 4


async def _listed(cluster: Cluster, times: int) -> bool:
    return sum((each.verb, each.resource) == ("list", "rolloutpools") for each in cluster.api.requests) >= times


async def _at_least(read: Any, kind: str, value: float) -> bool:
    return bool(read(kind) >= value)


async def _ready(health: Any) -> bool:
    return bool(health.ready())


async def _not_ready(health: Any) -> bool:
    return not health.ready()


async def _alive(health: Any) -> bool:
    return bool(health.alive)


async def _dead(health: Any) -> bool:
    return not health.alive
