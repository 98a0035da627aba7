"""`onlinerlhf k8s status|scale|pause|resume|drain|logs` on an API server that answers like one."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from click.testing import CliRunner

from integration.scaler.commands_support import meanwhile, obey, put_deployment, put_lease, put_pod, put_pool, run
from kube.cluster import eventually
from kube.fake_api import FakeApi
from onlinerlhf.cli_k8s import k8s
from onlinerlhf.scaler.commands import logs, waiting
from onlinerlhf.scaler.commands.cluster import Place

STATUS = {
    "observedGeneration": 1,
    "replicas": 2,
    "readyReplicas": 2,
    "desiredReplicas": 3,
    "backlog": 1300,
    "inFlight": 83,
    "oldestSeconds": 75,
    "staleness": 1.5,
    "policyVersion": 6,
    "learnerVersion": 7,
    "reason": "Backlog",
    "message": "1300 samples wait, 64 a worker",
    "lastScaleTime": "2026-01-01T00:00:00Z",
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.02)


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with FakeApi() as api:
        put_deployment(api, "scaler", replicas=2)
        put_deployment(api, "rollout-default", replicas=2)
        put_lease(api)
        put_pool(api, status=STATUS)
        yield api


async def test_status_shows_pools_why_and_the_rest(api: FakeApi) -> None:
    put_deployment(api, "gateway", replicas=2, ready=1)
    ran = await run(api, "status")
    assert ran.code == 0, ran.output
    assert ran.output.startswith("scaler: scaler-a leads")
    (row,) = [line for line in ran.output.splitlines() if line.startswith("default ")]
    assert row.split() == ["default", "auto", "1..4", "3", "2", "2", "1,300", "83", "1m15s", "1.5", "6", "of", "7"]
    assert "default: Backlog: 1300 samples wait, 64 a worker; last scaled" in ran.output
    assert "deployment/onlinerlhf-gateway" in ran.output and "1/2" in ran.output


async def test_status_without_a_leader_calls_nothing_current(api: FakeApi) -> None:
    put_lease(api, age_seconds=630)
    ran = await run(api, "status")
    assert "no scaler leads: scaler-a has been silent for 10m" in ran.output
    assert "(not current)" in ran.output
    found = json.loads((await run(api, "status", "--json")).output)
    assert found["scaler"]["is_current"] is False and found["scaler"]["silent_seconds"] > 590
    api.delete("Lease", "onlinerlhf-scaler")
    assert "no scaler has ever led here" in (await run(api, "status")).output


async def test_status_shows_what_degrades_a_pool(api: FakeApi) -> None:
    away = {"type": "Degraded", "status": "True", "reason": "RedisAway", "message": "Redis does not answer"}
    put_pool(api, status={**STATUS, "conditions": [away], "observedGeneration": 0})
    ran = await run(api, "status")
    assert "Degraded: Redis does not answer" in ran.output
    assert "has not seen the newest change yet" in ran.output


async def test_status_names_pods_that_are_not_ready(api: FakeApi) -> None:
    put_deployment(api, "reward", ready=0)
    status = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]}
    put_pod(api, "onlinerlhf-reward-1", "reward", status=status)
    assert "pod/onlinerlhf-reward-1 waits for a node: 0/1 nodes" in (await run(api, "status")).output


async def test_status_for_programs_has_every_figure(api: FakeApi) -> None:
    (pool,) = json.loads((await run(api, "status", "--json")).output)["pools"]
    assert (pool["name"], pool["mode"], pool["desired"], pool["backlog"]) == ("default", "auto 1..4", 3, 1300)
    assert pool["seconds_since_scaled"] > 0 and pool["last_scaled"] == "2026-01-01T00:00:00+00:00"


async def test_status_of_an_empty_namespace_says_what_to_do(api: FakeApi) -> None:
    ran = await run(api, "status", namespace="elsewhere")
    assert ran.code == 1 and "namespace elsewhere holds nothing of the platform" in ran.output


async def test_a_fixed_size_is_written_waited_for_and_explained(api: FakeApi) -> None:
    async with meanwhile(lambda: obey(api)):
        ran = await run(api, "scale", "3")
    assert ran.code == 0, ran.output
    assert api.get("RolloutPool", "default")["spec"]["replicas"] == 3
    assert "was auto 1..4; fixed at 3 until `onlinerlhf k8s scale auto`" in ran.output
    assert "done after" in ran.output and "Fixed: so be it" in ran.output


async def test_auto_removes_the_fixed_size(api: FakeApi) -> None:
    put_pool(api, replicas=4)
    async with meanwhile(lambda: obey(api)):
        ran = await run(api, "scale", "auto")
    assert ran.code == 0 and "replicas" not in api.get("RolloutPool", "default")["spec"]
    assert "was fixed 4; the scaler chooses from 1 to 4 replicas" in ran.output


async def test_a_size_that_does_not_come_about_ends_with_what_it_waited_for(api: FakeApi) -> None:
    ran = await run(api, "scale", "3", "--timeout", "0.2")
    assert ran.code == 1
    assert "pool default: not within 0.2 s; last waited for: the scaler to see the change" in ran.output


async def test_without_a_leader_the_wish_is_written_and_the_trouble_told(api: FakeApi) -> None:
    put_lease(api, age_seconds=90)
    ran = await run(api, "scale", "3")
    assert ran.code == 1 and "the wish is written, but no scaler leads" in ran.output
    assert api.get("RolloutPool", "default")["spec"]["replicas"] == 3
    assert (await run(api, "scale", "2", "--no-wait")).code == 0


async def test_sizes_that_make_no_sense_are_refused(api: FakeApi) -> None:
    for size in ("-1", "1.5", "many"):
        ran = await run(api, "scale", "--no-wait", "--", size)
        assert ran.code == 2 and "N is a whole number from 0 up, or the word auto" in ran.output
    ran = await run(api, "scale", "20000", "--no-wait")
    assert ran.code == 1 and "spec.replicas" in ran.output


async def test_an_unknown_pool_is_answered_with_those_there_are(api: FakeApi) -> None:
    put_pool(api, "spot")
    ran = await run(api, "scale", "2", "--pool", "gpu")
    assert ran.code == 1
    assert "no pool 'gpu' in namespace onlinerlhf; there are: default, spot" in ran.output
    api.delete("RolloutPool", "default")
    put_pool(api, "reserved")
    assert "several pools and none is called 'default'" in (await run(api, "pause")).output


async def test_a_pause_holds_the_size_and_resume_frees_it(api: FakeApi) -> None:
    async with meanwhile(lambda: obey(api)):
        paused = await run(api, "pause")
        assert "paused; it keeps its size (1) whatever comes" in paused.output
        assert api.get("RolloutPool", "default")["spec"]["paused"] is True
        assert "is paused already" in (await run(api, "pause")).output
        fixed = await run(api, "scale", "4")
        assert fixed.code == 0 and "the pool is paused: nothing changes until `onlinerlhf k8s resume" in fixed.output
        resumed = await run(api, "resume")
    assert resumed.code == 0 and "resumed as fixed 4" in resumed.output


async def test_a_pod_is_evicted_when_its_budget_allows_and_waited_for(api: FakeApi) -> None:
    api.run_deployments()
    await eventually("the pods are there", lambda: _has_pods(api, 4))
    victim = api.objects("Pod")[0]["metadata"]
    labels = victim["labels"]
    budget = {"kind": "PodDisruptionBudget", "metadata": {"name": "b"}, "spec": {"selector": {"matchLabels": labels}}}
    api.put({**budget, "status": {"disruptionsAllowed": 0}})
    draining = asyncio.create_task(run(api, "drain", victim["name"]))
    await eventually("an eviction is tried", lambda: _has_tried_to_evict(api))
    api.put({**budget, "status": {"disruptionsAllowed": 1}})
    ran = await draining
    assert ran.code == 0, ran.output
    assert "the disruption budget" in ran.output
    assert f"{victim['name']}: gone after" in ran.output
    assert "whole again after" in ran.output
    assert victim["name"] not in [each["metadata"]["name"] for each in api.objects("Pod")]


async def test_an_eviction_that_is_never_allowed_ends_with_the_reason(api: FakeApi) -> None:
    put_pod(api, "onlinerlhf-gateway-1", "gateway")
    api.fail_next(None, 429, subresource="eviction")
    ran = await run(api, "drain", "onlinerlhf-gateway-1", "--timeout", "0.2")
    assert ran.code == 1
    assert "eviction of onlinerlhf-gateway-1: not within 0.2 s; last waited for: the disruption budget" in ran.output


async def test_a_pool_is_drained_to_nothing(api: FakeApi) -> None:
    async with meanwhile(lambda: obey(api)):
        ran = await run(api, "drain", "--pool", "default")
    assert ran.code == 0 and "default: empty" in ran.output
    assert api.get("RolloutPool", "default")["spec"]["replicas"] == 0


async def test_a_paused_pool_is_not_drained(api: FakeApi) -> None:
    put_pool(api, paused=True)
    ran = await run(api, "drain", "--pool", "default")
    assert ran.code == 1 and "pool default is paused, so it keeps its pods" in ran.output


async def test_an_unknown_pod_is_answered_with_those_there_are(api: FakeApi) -> None:
    put_pod(api, "onlinerlhf-gateway-1", "gateway")
    ran = await run(api, "drain", "nope")
    assert ran.code == 1 and "there are: onlinerlhf-gateway-1" in ran.output


async def test_logs_of_a_room_are_merged_by_time_with_the_pods_names(api: FakeApi) -> None:
    for name, lines in (
        ("a-1", "2026-01-01T00:00:01Z one\n2026-01-01T00:00:03Z three\n"),
        ("a-10", "2026-01-01T00:00:02Z two\n"),
    ):
        put_pod(api, name, "reward")
        api.logs[name] = lines
    put_pod(api, "b-1", "gateway")
    api.logs["b-1"] = "2026-01-01T00:00:00Z other\n"
    ran = await run(api, "logs", "reward")
    assert ran.output.splitlines() == ["a-1  | one", "a-10 | two", "a-1  | three"]
    assert (await run(api, "logs", "b-")).output == "b-1 | other\n"
    assert len((await run(api, "logs")).output.splitlines()) == 4


async def test_logs_of_what_is_not_there_list_rooms_and_pods(api: FakeApi) -> None:
    put_pod(api, "b-1", "gateway")
    ran = await run(api, "logs", "nope")
    assert ran.code == 1 and "no room or pod 'nope'; rooms: gateway; pods: b-1" in ran.output
    ran = await run(api, "logs", "gateway", "--since", "yesterday")
    assert ran.code == 1 and "--since takes a length of time like 90s" in ran.output


async def test_following_logs_shows_pods_that_come_later(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs, "RELIST_SECONDS", 0.02)
    put_pod(api, "a-1", "reward")
    api.logs["a-1"] = "2026-01-01T00:00:01Z one\n"
    place = Place(namespace=api.namespace, kubeconfig=api.kubeconfig)
    following = asyncio.create_task(logs.show(place, logs.Wanted(target="reward", is_following=True)))
    seen = ""
    async with asyncio.timeout(10):
        while "one" not in seen:
            await asyncio.sleep(0.02)
            seen += capsys.readouterr().out
        put_pod(api, "a-2", "reward")
        api.logs["a-2"] = "2026-01-01T00:00:02Z two\n"
        while "a-2 | two" not in seen:
            await asyncio.sleep(0.02)
            seen += capsys.readouterr().out
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following
    assert seen.count("one") == 1


async def _has_tried_to_evict(api: FakeApi) -> bool:
    return any(each.subresource == "eviction" for each in api.requests)


async def _has_pods(api: FakeApi, num: int) -> bool:
    return len(api.objects("Pod")) == num


def test_help_teaches_by_examples() -> None:
    for name in k8s.commands:
        assert f"  onlinerlhf k8s {name}" in CliRunner().invoke(k8s, [name, "--help"]).output, name
