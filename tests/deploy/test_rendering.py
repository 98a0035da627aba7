"""Every values set is linted, rendered by Helm's engine, and valid for three versions of Kubernetes."""

import json
import subprocess
import sys
from collections import Counter
from functools import cache

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils

from deploy.helm import DEPLOY, RELEASE, ROOT, SETS, changed, lint, render, rendered, renderer, values_of
from deploy.objects import Object

KUBERNETES = ("1.29", "1.33", kubernetes_validate.latest_version())
CUSTOM = {
    "RolloutPool": "test_rollout_pools.py checks them by the definition itself",
    "ScaledObject": "KEDA's, no schema here",
    "TriggerAuthentication": "KEDA's, no schema here",
    "Certificate": "cert-manager's, no schema here",
    "Issuer": "cert-manager's, no schema here",
    "PodMonitor": "the Prometheus operator's, no schema here",
    "PrometheusRule": "the Prometheus operator's, no schema here",
    "CustomResourceDefinition": "its schema is recursive; test_rollout_pools.py uses it",
}


schema_contents = cache(utils.schema_contents)


@cache
def validate(text: str, version: str) -> None:
    """Once for what several sets have in common. Raises ValidationError."""
    kubernetes_validate.validate(json.loads(text), version, strict=True)


def identity(each: Object) -> tuple[str, str, str]:
    metadata = each["metadata"]
    return each["kind"], metadata.get("namespace", ""), metadata["name"]


def test_the_sets_are_those_that_the_docs_promise() -> None:
    assert set(SETS) >= {"external-redis", "gpu-prod", "keda", "minimal", "tls"}


@pytest.mark.parametrize("name", SETS)
def test_the_linter_finds_nothing(name: str) -> None:
    assert lint(values_of(name)) == []


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", SETS)
def test_all_but_custom_objects_are_valid_to_the_strict_schema(
    name: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It parses a megabyte of definitions anew for every object.
    monkeypatch.setattr(utils, "schema_contents", schema_contents)
    kinds: Counter[str] = Counter()
    for each in rendered(name).objects:
        if each["kind"] not in CUSTOM:
            validate(json.dumps(each), version)
            kinds[each["kind"]] += 1
    assert kinds["Deployment"] >= 3 and kinds["StatefulSet"] >= 1


def test_the_strict_schema_finds_what_the_api_server_would_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils, "schema_contents", schema_contents)
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": "http"}]}}
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(json.dumps(service), KUBERNETES[0])
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(json.dumps({**service, "spec": {"port": []}}), KUBERNETES[0])


@pytest.mark.parametrize("name", SETS)
def test_no_two_objects_have_one_name(name: str) -> None:
    names = Counter(identity(each) for each in rendered(name).objects)
    assert [each for each, num in names.items() if num > 1] == []


@pytest.mark.parametrize("name", SETS)
def test_two_releases_in_one_namespace_would_share_their_pools_and_nothing_else(name: str) -> None:
    # Pools are called what the values call them, and a scaler sizes all of its namespace: one release a namespace.
    one, two = (render(values_of(name), release=release) for release in ("blue", "green"))
    shared = {identity(each) for each in one.objects} & {identity(each) for each in two.objects}
    assert {kind for kind, _, _ in shared} <= {"CustomResourceDefinition", "RolloutPool"}
    assert {name for kind, _, name in shared if kind == "RolloutPool"} == set(one.names("RolloutPool"))


@pytest.mark.parametrize("name", SETS)
def test_everything_is_in_the_releases_namespace_and_carries_its_labels(name: str) -> None:
    for each in rendered(name).objects:
        if each["kind"] in ("CustomResourceDefinition", "Namespace"):
            continue
        assert each["metadata"].get("namespace") == "rlhf", identity(each)
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == RELEASE, identity(each)


@pytest.mark.parametrize("name", SETS)
def test_a_changed_setting_changes_the_pod_template_of_its_room(name: str) -> None:
    before, after = rendered(name), render(changed(name, {"reward": {"settings": {"num_threads": 3}}}))
    assert [pods.annotations for pods in before.pods("reward")] != [pods.annotations for pods in after.pods("reward")]
    both = zip(before.pods("gateway"), after.pods("gateway"), strict=True)
    assert all(one.annotations == other.annotations for one, other in both)


@pytest.mark.parametrize("name", SETS)
def test_no_template_wrote_down_what_it_did_not_know(name: str) -> None:
    # What Go's templates and its printf make of missing and surplus arguments.
    text = json.dumps(rendered(name).objects)
    assert not [word for word in ("<no value>", "<nil>", "%!", "map[") if word in text]


def test_rendering_twice_differs_in_the_password_alone() -> None:
    one, two = (renderer.render(values_of("minimal")) for _ in range(2))
    assert [each["kind"] for each, other in zip(one, two, strict=True) if each != other] == ["Secret"]


def test_the_namespace_that_the_manifests_make_enforces_the_restricted_profile() -> None:
    [namespace] = render(changed("minimal", {"namespace": {"create": True}})).of("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_committed_manifests_are_what_the_chart_renders() -> None:
    done = subprocess.run(
        [sys.executable, str(DEPLOY / "render.py"), "--check"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SETS)
def test_the_committed_manifests_hold_no_password(name: str) -> None:
    manifests = yaml.safe_load_all((DEPLOY / "manifests" / f"{name}.yaml").read_text())
    secrets = [each for each in manifests if each and each["kind"] == "Secret"]
    assert [each["metadata"]["name"] for each in secrets if each.get("data") or each.get("stringData")] == []
