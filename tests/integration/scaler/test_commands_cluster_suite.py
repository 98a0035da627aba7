"""The suite for a real cluster, as far as it can be tried without one: what it makes, sends and reads."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from aiohttp import web
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from redis.asyncio import Redis

from clients.conftest import fake_gateway
from clients.fake_gateway import API_KEY, FakeGateway
from cluster import objects, pod_ledger
from cluster.platform import GROUP, NotInTime, Platform, collect, eventually, is_ready, last_json
from cluster.test_crd import REFUSED
from integration.scaler.commands_support import bring_up, meanwhile, put_deployment, put_lease, put_pod, put_pool
from integration.streams.support import put
from kube.fake_api import FakeApi
from onlinerlhf.core.samples import Stage
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.scaler.commands import waiting

__all__ = ["fake_gateway"]

ROOT = Path(__file__).parents[3]
MINIMAL = (ROOT / "deploy" / "manifests" / "minimal.yaml").read_text(encoding="utf-8")


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with FakeApi() as api:
        yield api


def platform_on(api: FakeApi, *manifests: Path) -> Platform:
    """As the suite's fixtures make it."""
    connection = config.new_client_from_config(config_file=str(api.kubeconfig))
    return Platform(api=connection, kubeconfig=api.kubeconfig, namespace=api.namespace, manifests=manifests)


class Exec:
    """A WebSocket to a command that has ended, or that never does."""

    def __init__(self, out: str = "", err: str = "", code: int | None = 0, *, hangs: bool = False) -> None:
        self.out, self.err, self.code, self.hangs = out, err, code, hangs
        self.closed = False
        self.sock = self

    def shutdown(self) -> None: ...

    def run_forever(self, timeout: float) -> None: ...

    def is_open(self) -> bool:
        return self.hangs

    def read_stdout(self, timeout: float) -> str:
        return self.out

    def read_stderr(self, timeout: float) -> str:
        return self.err

    @property
    def returncode(self) -> int:
        if self.code is None:
            raise TypeError("'NoneType' object is not subscriptable")
        return self.code

    def close(self) -> None:
        self.closed = True


def test_the_quick_manifest_differs_from_the_minimal_set_only_where_it_must() -> None:
    quick = {
        (each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(objects.quick_manifest(MINIMAL))
    }
    plain = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(MINIMAL)}
    changed = [key for key in plain if plain[key] != quick[key]]
    assert plain.keys() == quick.keys()
    assert changed == [("ConfigMap", "onlinerlhf-config"), ("RolloutPool", "default")]
    text = quick["ConfigMap", "onlinerlhf-config"]["data"]["config.toml"]
    # The workers' bound and the scaler's are one.
    assert text.count("max_samples_ahead = 2048") == 2


def test_a_shared_storage_class_is_for_the_models_volume() -> None:
    quick = list(yaml.safe_load_all(objects.quick_manifest(MINIMAL, shared_storage_class="nfs")))
    (claim,) = [each for each in quick if each["kind"] == "PersistentVolumeClaim"]
    assert (claim["spec"]["storageClassName"], claim["spec"]["accessModes"]) == ("nfs", ["ReadWriteMany"])
    # What a volume of one node ties together, this one lets move.
    specs = [each["spec"]["template"]["spec"] for each in quick if "template" in each.get("spec", {})]
    assert len(specs) > 5 and not any("affinity" in spec for spec in specs)


def test_the_run_is_the_one_of_the_manifest() -> None:
    assert objects.run_id_of(MINIMAL) == "default"


def test_the_clients_pod_meets_the_restricted_standard_and_takes_none_of_the_platforms_labels() -> None:
    pod = objects.client_pod("image")
    spec, (container,) = pod["spec"], pod["spec"]["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["metadata"]["labels"].keys() == objects.client_policy()["spec"]["podSelector"]["matchLabels"].keys()
    assert "app.kubernetes.io/name" not in pod["metadata"]["labels"]


def test_what_a_command_printed_is_returned_and_its_failure_told() -> None:
    fine = Exec(out="hello")
    assert collect(fine, what="x", seconds=1) == "hello" and fine.closed
    with pytest.raises(AssertionError, match="x ended with 2: no such thing"):
        collect(Exec(err="no such thing", code=2), what="x", seconds=1)
    with pytest.raises(NotInTime, match="x: not within 1 s"):
        collect(Exec(hangs=True), what="x", seconds=1)
    with pytest.raises(AssertionError, match="the connection broke off"):
        collect(Exec(code=None), what="x", seconds=1)


def test_json_is_found_behind_what_libraries_say() -> None:
    assert last_json('{"a": 1}\n') == {"a": 1}
    assert last_json('a warning\n{"a": {"b": 2}}\n') == {"a": {"b": 2}}
    assert last_json(json.dumps({"a": [1, 2]}, indent=2)) == {"a": [1, 2]}


def test_waits_are_bounded() -> None:
    found = iter([None, False, 3])
    assert eventually(lambda: next(found), what="x", seconds=5, every=0) == 3
    with pytest.raises(NotInTime, match="not within 0 s: pigs to fly"):
        eventually(lambda: None, what="pigs to fly", seconds=0)


async def test_the_suite_reads_pods_pools_and_services(api: FakeApi) -> None:
    put_pool(api)
    put_pod(api, "onlinerlhf-gateway-1", "gateway")
    for name, address in (("onlinerlhf-gateway-headless", "None"), ("onlinerlhf-gateway", "10.0.0.1")):
        labels = {"app.kubernetes.io/component": "gateway"}
        api.put({"kind": "Service", "metadata": {"name": name, "labels": labels}, "spec": {"clusterIP": address}})
    platform = platform_on(api)

    def work() -> None:
        (pod,) = platform.pods("gateway")
        assert is_ready(pod) and platform.ready_pod("gateway") == "onlinerlhf-gateway-1"
        assert platform.pods("reward") == []
        assert platform.service("gateway") == "onlinerlhf-gateway"
        assert platform.patch_pool({"replicas": 2})["spec"]["replicas"] == 2
        assert "replicas" not in platform.patch_pool({"replicas": None})["spec"]
        assert platform.pool()["metadata"]["name"] == "default"
        with pytest.raises(ApiException) as refused:
            platform.patch_pool({"minReplicas": 9})
        assert refused.value.status == 422 and "maxReplicas must not be less" in str(refused.value)

    await asyncio.to_thread(work)
    platform.api.close()


async def test_the_suite_installs_and_waits_with_the_commands(api: FakeApi, tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    kept = [each for each in yaml.safe_load_all(MINIMAL) if each["kind"] in ("Deployment", "RolloutPool")]
    path.write_text(yaml.safe_dump_all(kept))
    put_lease(api)
    platform = platform_on(api, ROOT / "deploy/manifests/crds.yaml", path)
    api.put({"kind": "Secret", "metadata": {"name": "onlinerlhf-redis-auth"}})
    async with meanwhile(lambda: bring_up(api, api.namespace)):
        ran = await asyncio.to_thread(platform.k8s, "install", *platform.manifest_options)
        assert ran.code == 0, ran.output
        await asyncio.to_thread(platform.wait_until_whole, seconds=10)
    platform.api.close()


async def test_objects_of_the_suite_are_taken_by_the_api(api: FakeApi) -> None:
    platform = platform_on(api)

    def work() -> None:
        platform.core.create_namespaced_secret(api.namespace, objects.key_secret("k"))
        client.NetworkingV1Api(platform.api).create_namespaced_network_policy(api.namespace, objects.client_policy())
        platform.core.create_namespaced_pod(api.namespace, objects.client_pod("image"))
        evict = platform.core.create_namespaced_pod_eviction
        evict(objects.CLIENT, api.namespace, objects.eviction(objects.CLIENT, api.namespace))

    await asyncio.to_thread(work)
    assert api.objects("Pod") == []
    platform.api.close()


async def test_what_the_suite_expects_to_be_refused_is_refused_by_the_schema(api: FakeApi) -> None:
    put_pool(api)
    platform = platform_on(api)

    def work() -> None:
        for spec in REFUSED:
            with pytest.raises(ApiException) as refused:
                platform.patch_pool(spec)
            assert refused.value.status == 422, spec
        ghost = {"metadata": {"name": "ghost"}, "spec": {"deploymentName": "no-such-deployment", **objects.POOL}}
        path = f"/apis/{GROUP[0]}/{GROUP[1]}/namespaces/{api.namespace}/rolloutpools"
        platform.request("POST", path, {"apiVersion": "/".join(GROUP), "kind": "RolloutPool", **ghost})
        platform.request("DELETE", f"{path}/ghost")

    await asyncio.to_thread(work)
    platform.api.close()


@pytest.mark.parametrize("version", ["1.29", "1.36"])
def test_objects_of_the_suite_fit_kubernetes_schemas(version: str) -> None:
    made = [
        objects.client_pod("image", pull_secrets=[{"name": "registry"}]),
        objects.client_policy(),
        objects.key_secret("k"),
        objects.eviction("pod", "namespace"),
        objects.review("namespace", "user", "apps", "deployments/scale", "patch"),
    ]
    for thing in made:
        kubernetes_validate.validate(thing, version, strict=True)


async def test_a_command_runs_in_a_pod_over_a_websocket(api: FakeApi) -> None:
    """Frames as kubelets send them: a channel's number, then its bytes; the exit code comes on channel 3."""
    asked: list[list[str]] = []

    async def answer(request: web.Request) -> web.WebSocketResponse:
        asked.append(request.query.getall("command"))
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await socket.prepare(request)
        for part in ("", '{"a":', " 1}\n"):
            await socket.send_bytes(b"\x01" + part.encode())
        await socket.send_bytes(b"\x02a warning\n")
        failed = {"status": "Failure", "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}}
        status = failed if asked[-1] == ["false"] else {"status": "Success"}
        await socket.send_bytes(b"\x03" + json.dumps(status).encode())
        await socket.close()
        return socket

    app = web.Application()
    app.router.add_get(f"/api/v1/namespaces/{api.namespace}/pods/p/exec", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    # The client reads the file again for each call.
    text = api.kubeconfig.read_text()
    api.kubeconfig.write_text(text.replace(api.url, f"http://127.0.0.1:{runner.addresses[0][1]}"))
    platform = platform_on(api)
    try:
        assert last_json(await asyncio.to_thread(platform.run_in, "p", ["python", "-c", "x = 1\ny"])) == {"a": 1}
        assert asked == [["python", "-c", "x = 1\ny"]]
        with pytest.raises(AssertionError, match="false in p ended with 3: a warning"):
            await asyncio.to_thread(platform.run_in, "p", ["false"])
    finally:
        platform.api.close()
        await runner.cleanup()


async def test_the_client_in_the_pod_answers_and_offers(fake_gateway: FakeGateway) -> None:
    source = (ROOT / "tests" / "cluster" / "pod_client.py").read_text(encoding="utf-8")
    order = {"target": fake_gateway.target, "answers": 2, "prompts": 3, "tag": "x", "seconds": 0}
    command = [sys.executable, "-c", source, json.dumps(order)]
    environment = os.environ | {"ONLINERLHF_API_KEY": API_KEY}
    ran = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    found = last_json(ran.stdout)
    assert [each["version"] for each in found["answers"]] == [3, 3]
    assert len(set(found["samples"])) == 3 and found["refused"] == []


async def test_the_ledger_in_the_pod_counts_anew_and_tells_states(
    client: Redis, keys: RunKeys, run_config: RunConfig
) -> None:
    await put(client, keys, "s1", b"", stage=Stage.PROMPTS)
    found = await pod_ledger.read(run_config)
    assert found["imbalance"] == 0 and found["counts"] == found["audit"]
    assert found["states"] == {"s1": "prompts"}
    assert json.loads(json.dumps(found))["counts"]["admitted"] == 1


async def test_status_is_whole_only_when_nothing_waits(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.02)
    put_lease(api)
    put_pool(api)
    put_deployment(api, "gateway", replicas=2, ready=1)
    platform = platform_on(api)
    with pytest.raises(NotInTime, match="all workloads ready"):
        await asyncio.to_thread(platform.wait_until_whole, seconds=0)
    put_deployment(api, "gateway", replicas=2)
    await asyncio.to_thread(platform.wait_until_whole, seconds=0)
    platform.api.close()
