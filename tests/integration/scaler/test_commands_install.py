"""`onlinerlhf k8s install` on an API server that answers like one."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from integration.scaler.commands_support import Ran, bring_up, meanwhile, run
from kube.fake_api import FakeApi, Fault
from kube.store import Refused
from onlinerlhf.scaler.commands import waiting

NAMESPACE = "fresh"
MANIFESTS = Path(__file__).parents[3] / "deploy" / "manifests"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.05)


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with FakeApi() as api:
        yield api


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A few objects of the minimal set, of every kind that is treated in a way of its own."""
    names = (
        "onlinerlhf",
        "onlinerlhf-gateway",
        "onlinerlhf-redis",
        "onlinerlhf-config",
        "onlinerlhf-reward",
        "default",
    )
    objects = list(yaml.safe_load_all((MANIFESTS / "minimal.yaml").read_text()))
    kept = [each for each in objects if each["metadata"]["name"] in names or each["kind"] == "Job"]
    kinds = ("Namespace", "ConfigMap", "Service", "StatefulSet", "Deployment", "Job", "RolloutPool")
    path = tmp_path_factory.mktemp("small") / "small.yaml"
    path.write_text(yaml.safe_dump_all([each for each in kept if each["kind"] in kinds]))
    return ["--manifest", str(MANIFESTS / "crds.yaml"), "--manifest", str(path)]


async def install(api: FakeApi, *arguments: str) -> Ran:
    async with meanwhile(lambda: bring_up(api, NAMESPACE)):
        return await run(api, "install", *arguments, namespace=NAMESPACE)


async def test_one_command_installs_the_minimal_set_and_waits_for_it(api: FakeApi) -> None:
    ran = await install(api, "--registry", "registry.example/rlhf", "--tag", "9.9")
    assert ran.code == 0, ran.output
    assert "everything is ready" in ran.output
    labels = api.get("Namespace", NAMESPACE)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    gateway = api.get("Deployment", "onlinerlhf-gateway", namespace=NAMESPACE)
    assert (
        gateway["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/rlhf/onlinerlhf-gateway:9.9"
    )
    config = api.get("ConfigMap", "onlinerlhf-config", namespace=NAMESPACE)["data"]["config.toml"]
    assert "onlinerlhf-rollout.fresh.svc.cluster.local" in config
    assert ".onlinerlhf.svc" not in config


async def test_kinds_come_first_then_the_namespace_the_secret_and_the_rest(api: FakeApi, small: list[str]) -> None:
    await install(api, *small)
    made = [each.resource for each in api.requests if each.verb in ("patch", "create")]
    assert made[:3] == ["customresourcedefinitions", "namespaces", "secrets"]
    assert made[-1] == "rolloutpools"
    assert made.index("services") < made.index("deployments")


async def test_the_password_is_made_once_and_never_shown(api: FakeApi, small: list[str]) -> None:
    first = await install(api, *small)
    data = api.get("Secret", "onlinerlhf-redis-auth", namespace=NAMESPACE)["data"]
    password = base64.b64decode(data["password"]).decode()
    assert base64.b64decode(data["url"]).decode() == f"redis://:{password}@onlinerlhf-redis:6379/0"
    again = await install(api, *small)
    assert again.code == 0 and "secret/onlinerlhf-redis-auth kept" in again.output
    assert api.get("Secret", "onlinerlhf-redis-auth", namespace=NAMESPACE)["data"] == data
    assert password not in first.output + again.output


async def test_installing_again_changes_nothing_but_what_changed(api: FakeApi, small: list[str]) -> None:
    await install(api, *small)
    again = await install(api, *small)
    assert "service/onlinerlhf-gateway unchanged" in again.output
    assert " configured" not in again.output and " created" not in again.output
    upgraded = await install(api, *small, "--tag", "2")
    assert "deployment/onlinerlhf-gateway configured" in upgraded.output
    assert "service/onlinerlhf-gateway unchanged" in upgraded.output


async def test_an_operators_size_survives_an_upgrade(api: FakeApi, small: list[str]) -> None:
    await install(api, *small)
    pool = api.get("RolloutPool", "default", namespace=NAMESPACE)
    api.put({**pool, "spec": {**pool["spec"], "replicas": 3, "paused": True}})
    await install(api, *small, "--tag", "2")
    spec = api.get("RolloutPool", "default", namespace=NAMESPACE)["spec"]
    assert (spec["replicas"], spec["paused"]) == (3, True)


async def test_a_dry_run_changes_nothing_and_says_what_could_not_be_checked(api: FakeApi, small: list[str]) -> None:
    ran = await run(api, "install", *small, "--dry-run", namespace=NAMESPACE)
    assert ran.code == 0, ran.output
    assert "not checked: its namespace comes with this installation" in ran.output
    assert [each["metadata"]["name"] for each in api.objects("Namespace")] == ["onlinerlhf"]
    assert api.objects("CustomResourceDefinition") == []
    await install(api, *small)
    before = api.store.version
    ran = await run(api, "install", *small, "--dry-run", "--tag", "2", namespace=NAMESPACE)
    assert ran.code == 0 and "deployment/onlinerlhf-gateway would be configured" in ran.output
    assert "service/onlinerlhf-gateway unchanged" in ran.output
    assert api.store.version == before


async def test_what_does_not_come_up_is_named_with_its_reason(api: FakeApi, small: list[str]) -> None:
    ran = await run(api, "install", *small, "--timeout", "0.3", namespace=NAMESPACE)
    assert ran.code == 1
    assert "deployment/onlinerlhf-reward: it has no pods yet" in ran.output
    assert "not within 0.3 s" in ran.output
    reward = api.get("Deployment", "onlinerlhf-reward", namespace=NAMESPACE)
    waiting_for = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    pod = {
        "kind": "Pod",
        "metadata": {
            "name": "onlinerlhf-reward-abc",
            "namespace": NAMESPACE,
            "labels": reward["spec"]["selector"]["matchLabels"],
        },
        "status": {"phase": "Pending", "containerStatuses": [{"name": "reward", "state": waiting_for}]},
    }
    api.put(pod)
    ran = await run(api, "install", *small, "--timeout", "0.3", namespace=NAMESPACE)
    said = "pod/onlinerlhf-reward-abc waits for container reward: ImagePullBackOff: no such image"
    assert ran.code == 1 and said in ran.output


async def test_a_failed_job_ends_the_wait(api: FakeApi, small: list[str]) -> None:
    await run(api, "install", *small, "--no-wait", namespace=NAMESPACE)
    (job,) = api.objects("Job", namespace=NAMESPACE)
    failed = {"type": "Failed", "status": "True", "message": "Job has reached the specified backoff limit"}
    api.put({**job, "status": {"conditions": [failed]}})
    ran = await run(api, "install", *small, "--timeout", "60", namespace=NAMESPACE)
    assert ran.code == 1
    assert f"job/{job['metadata']['name']} failed: Job has reached the specified backoff limit" in ran.output


async def test_a_kind_that_the_cluster_lacks_is_told_before_anything_is_made(api: FakeApi) -> None:
    ran = await run(api, "install", "--values-set", "tls", namespace=NAMESPACE)
    assert ran.code == 1
    assert "cert-manager.io" in ran.output and "install cert-manager first" in ran.output
    assert api.objects("Deployment", namespace=NAMESPACE) == []
    assert [each["metadata"]["name"] for each in api.objects("Namespace")] == ["onlinerlhf"]


async def test_without_its_kinds_a_manifest_of_ones_own_is_refused_with_the_reason(
    api: FakeApi, tmp_path: Path
) -> None:
    thing = {"apiVersion": "onlinerlhf.dev/v2", "kind": "RolloutPool", "metadata": {"name": "x"}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(thing))
    ran = await run(api, "install", "--manifest", str(tmp_path / "mine.yaml"))
    assert ran.code == 1
    assert "no RolloutPool of onlinerlhf.dev/v2: its CustomResourceDefinition is not installed" in ran.output


async def test_an_external_redis_needs_its_secret_and_the_error_says_how_to_make_it(api: FakeApi) -> None:
    ran = await run(api, "install", "--values-set", "external-redis", namespace=NAMESPACE)
    assert ran.code == 1
    assert "is missing: kubectl -n fresh create secret generic" in ran.output


async def test_a_namespace_of_somebody_else_is_left_as_it_is(api: FakeApi, small: list[str]) -> None:
    api.put({"kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {"team": "x"}}})
    ran = await install(api, *small)
    assert ran.code == 0 and f"namespace/{NAMESPACE} kept as it is" in ran.output
    assert api.get("Namespace", NAMESPACE)["metadata"]["labels"] == {"team": "x"}


async def test_a_changed_job_is_replaced(api: FakeApi, small: list[str]) -> None:
    await install(api, *small)
    (old,) = api.objects("Job", namespace=NAMESPACE)
    # A real server spells the whole template out before it says what is wrong with it.
    template = "core.PodTemplateSpec{ObjectMeta:v1.ObjectMeta{" + 'Name:"", ' * 400 + "}}"
    said = f'Job.batch "{old["metadata"]["name"]}" is invalid: spec.template: Invalid value: {template}: field is '
    immutable = Refused(422, "Invalid", f"{said}immutable")
    api._faults.append(Fault(lambda request: (request.verb, request.resource) == ("patch", "jobs"), immutable, 1))
    ran = await install(api, *small)
    assert ran.code == 0 and f"job/{old['metadata']['name']} replaced" in ran.output
    (new,) = api.objects("Job", namespace=NAMESPACE)
    assert new["metadata"]["uid"] != old["metadata"]["uid"]


async def test_fields_that_others_own_are_told_with_the_way_out(api: FakeApi, small: list[str]) -> None:
    api.fail_next(1, 409, verb="patch", resource="services")
    ran = await run(api, "install", *small, "--no-wait", namespace=NAMESPACE)
    assert ran.code == 1
    assert "service/onlinerlhf-gateway: " in ran.output and "--force-conflicts takes the fields over" in ran.output


async def test_what_these_credentials_may_not_do_is_named(api: FakeApi, small: list[str]) -> None:
    api.fail_next(1, 403, verb="patch", resource="namespaces")
    ran = await run(api, "install", *small, "--no-wait", namespace=NAMESPACE)
    assert ran.code == 1
    assert "the cluster forbids PATCH /api/v1/namespaces/fresh with these credentials" in ran.output


async def test_without_a_cluster_or_a_kubeconfig_one_line_says_so(api: FakeApi, tmp_path: Path) -> None:
    with api.outage():
        ran = await run(api, "install")
    assert ran.code == 1 and ran.output.startswith("Error: no cluster at http://127.0.0.1:")
    await asyncio.to_thread((tmp_path / "nothing").write_text, "")
    ran = await run(api, "install", "--kubeconfig", str(tmp_path / "nothing"))
    assert ran.code == 1 and "no usable kubeconfig" in ran.output and "--context" in ran.output
