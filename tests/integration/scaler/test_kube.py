"""The typed calls against real HTTP: credentials, time-outs, strange answers, watches; and the fake itself."""

import asyncio
import shutil
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from integration.scaler.support import StubSignals
from kube.cluster import Cluster, eventually
from kube.fake_api import FakeApi
from onlinerlhf.core.errors import (
    AlreadyExists,
    ConfigError,
    InvalidInput,
    LimitReached,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from onlinerlhf.runtime.health import Health
from onlinerlhf.scaler.kinds import DEPLOYMENT, POD, ROLLOUT_POOL
from onlinerlhf.scaler.kube import Kube
from onlinerlhf.scaler.kube_errors import ApiAway, Conflict, Expired
from onlinerlhf.scaler.turn import Turns


@pytest.fixture
async def strange() -> AsyncIterator[tuple[FakeApi, list[web.Request]]]:
    """A server that answers 200 with a page, as a proxy might, and what it was asked."""
    asked: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request)
        return web.Response(text="<html>please log in</html>")

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with FakeApi() as api:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        api.kubeconfig.write_text(api.kubeconfig.read_text().replace(api.url, url))
        yield api, asked
    await runner.cleanup()


async def test_an_answer_that_is_not_the_api_servers_is_no_empty_list(
    strange: tuple[FakeApi, list[web.Request]],
) -> None:
    api, asked = strange
    async with await Kube.connect(api.kubeconfig) as kube:
        with pytest.raises(ApiAway, match="list rolloutpools: the answer is not the API server's"):
            await kube.list(ROLLOUT_POOL)
    assert asked[0].headers["Authorization"] == "Bearer none-needed"


async def test_a_server_that_does_not_answer_is_away_in_time(faulty: Cluster) -> None:
    with faulty.api.silence(), pytest.raises(ApiAway, match=r"get deployments rollout: .* does not answer in time"):
        await faulty.kube.get(DEPLOYMENT, "rollout", timeout_seconds=0.2)
    with faulty.api.outage(), pytest.raises(ApiAway, match="cannot be reached"):
        await faulty.kube.get(DEPLOYMENT, "rollout")


async def test_refusals_are_errors_of_ours(faulty: Cluster) -> None:
    await faulty.pool()
    with pytest.raises(AlreadyExists):
        await faulty.pool()
    with pytest.raises(NotFound, match='"other" not found'):
        await faulty.kube.get(DEPLOYMENT, "other")
    with pytest.raises(InvalidInput, match="minReplicas"):
        await faulty.edit(minReplicas=9)
    stale = {"metadata": {"resourceVersion": "1"}, "spec": {"priority": 3}}
    with pytest.raises(Conflict):
        await faulty.kube.patch(ROLLOUT_POOL, "default", stale)
    faulty.api.fail_next(1, 403)
    with pytest.raises(PermissionDenied, match="list pods is not allowed"):
        await faulty.kube.list(POD)
    faulty.api.fail_next(1, 429, retry_after=7)
    with pytest.raises(LimitReached) as found:
        await faulty.kube.list(POD)
    assert found.value.retry_after_seconds == 7.0


async def test_status_and_spec_are_written_apart(faulty: Cluster) -> None:
    await faulty.pool()
    await faulty.kube.patch(ROLLOUT_POOL, "default", {"status": {"replicas": 9}, "spec": {"priority": 2}})
    assert await faulty.status() == {}
    await faulty.kube.patch(
        ROLLOUT_POOL, "default", {"status": {"replicas": 3}, "spec": {"priority": 5}}, subresource="status"
    )
    pool = faulty.api.get("RolloutPool", "default")
    assert (pool["spec"]["priority"], pool["status"]["replicas"]) == (2, 3)
    assert pool["metadata"]["generation"] == 2


async def test_applying_makes_and_then_changes(faulty: Cluster) -> None:
    body = {
        "apiVersion": ROLLOUT_POOL.api_version,
        "kind": ROLLOUT_POOL.kind,
        "metadata": {"name": "applied"},
        "spec": {"deploymentName": "rollout", "maxReplicas": 2},
    }
    assert (await faulty.kube.apply(ROLLOUT_POOL, body))["spec"]["scaleDownSeconds"] == 60
    body["spec"] = {"deploymentName": "rollout", "maxReplicas": 5}
    assert (await faulty.kube.apply(ROLLOUT_POOL, body))["spec"]["maxReplicas"] == 5


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
async def test_kubectl_lists_and_scales_pools(faulty: Cluster, tmp_path: Path) -> None:
    await faulty.pool(maxReplicas=4)

    async def kubectl(*arguments: str) -> tuple[int, str]:
        options = ("--kubeconfig", str(faulty.kubeconfig), "--cache-dir", str(tmp_path), "--request-timeout", "10s")
        process = await asyncio.create_subprocess_exec("kubectl", *options, *arguments, stdout=PIPE, stderr=STDOUT)
        output, _ = await asyncio.wait_for(process.communicate(), 20)
        return process.returncode or 0, output.decode()

    assert await kubectl("scale", "rolloutpool", "default", "--replicas=3") == (
        0,
        "rolloutpool.onlinerlhf.dev/default scaled\n",
    )
    assert await kubectl("get", "rp", "default", "-o", "jsonpath={.spec.replicas}") == (0, "3")
    code, output = await kubectl("patch", "rp", "default", "--type=merge", "-p", '{"spec":{"minReplicas":9}}')
    assert code == 1 and "maxReplicas must not be less than minReplicas" in output


async def test_evictions_respect_budgets_and_logs_are_read(faulty: Cluster) -> None:
    await faulty.deploy()
    await eventually("a pod", lambda: _has_pods(faulty, 1))
    name = faulty.api.objects("Pod")[0]["metadata"]["name"]
    faulty.api.logs[name] = "one\ntwo\n"
    assert [line async for line in faulty.kube.logs(name)] == ["one", "two"]
    budget = {
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "rollout"},
        "spec": {"selector": {"matchLabels": {"app": "rollout"}}},
        "status": {"disruptionsAllowed": 0},
    }
    faulty.api.put(budget)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    with pytest.raises(LimitReached, match="disruption budget"):
        await faulty.kube.create(POD, eviction, name=name, subresource="eviction")
    faulty.api.put(budget | {"status": {"disruptionsAllowed": 1}})
    await faulty.kube.create(POD, eviction, name=name, subresource="eviction")
    with pytest.raises(NotFound):
        await faulty.kube.get(POD, name)


async def test_a_watch_begins_with_what_there_is_goes_on_where_it_was_and_may_be_too_late(faulty: Cluster) -> None:
    await faulty.pool("a")
    seen = []
    async for change, thing in faulty.kube.watch(ROLLOUT_POOL, seconds=1):
        version = thing["metadata"]["resourceVersion"]
        seen.append((change, thing["metadata"].get("name")))
        if len(seen) == 1:
            await faulty.pool("b")
    assert seen[:2] == [("ADDED", "a"), ("ADDED", "b")] and seen[-1] == ("BOOKMARK", None)
    await faulty.edit("a", priority=4)
    await faulty.kube.delete(ROLLOUT_POOL, "b")
    later = [
        (change, thing["metadata"].get("name"))
        async for change, thing in faulty.kube.watch(ROLLOUT_POOL, resource_version=version, seconds=1)
        if change != "BOOKMARK"
    ]
    assert later == [("MODIFIED", "a"), ("DELETED", "b")]
    faulty.api.expire_watches()
    with pytest.raises(Expired):
        async for _ in faulty.kube.watch(ROLLOUT_POOL, resource_version=version, seconds=5):
            pass


async def test_outside_of_a_pod_a_kubeconfig_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigError, match="no pod with a service account, and no kubeconfig is set"):
        await Kube.connect(None)


async def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        await Kube.connect(tmp_path / "nowhere")


async def test_whoever_does_not_surely_lead_writes_nothing(faulty: Cluster, signals: StubSignals) -> None:
    await faulty.deploy()
    await faulty.pool()
    signals.backlog = 5_000
    turns = Turns(faulty.kube, signals, health=Health("scaler"), identity="late", may_act_seconds=lambda: 0.0)
    faulty.api.requests.clear()
    assert isinstance(await turns.turn(), Unavailable)
    assert {each.verb for each in faulty.api.requests} == {"list", "get"}


async def _has_pods(cluster: Cluster, count: int) -> bool:
    await asyncio.sleep(0)
    return len(cluster.api.objects("Pod")) == count
