"""A rendered manifest: read, moved, ordered, given images."""

import base64
from pathlib import Path
from typing import Any

import pytest

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.scaler.commands import manifests
from onlinerlhf.scaler.commands.install import new_redis_secret

POD = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: onlinerlhf-gateway, namespace: onlinerlhf}
spec:
  template:
    spec:
      containers:
        - name: gateway
          image: onlinerlhf-gateway:0.1.0
          env:
            - name: ONLINERLHF_RUN__REDIS_URL
              valueFrom: {secretKeyRef: {name: onlinerlhf-redis-auth, key: url}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: onlinerlhf-config, namespace: onlinerlhf}
data:
  config.toml: |
    rollout_target = "dns:///onlinerlhf-rollout.onlinerlhf.svc.cluster.local:50051"
---
apiVersion: v1
kind: Namespace
metadata: {name: onlinerlhf}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: onlinerlhf-scaler, namespace: onlinerlhf}
subjects: [{kind: ServiceAccount, name: onlinerlhf-scaler, namespace: onlinerlhf}]
"""


def written(tmp_path: Path, text: str = POD) -> list[dict[str, Any]]:
    path = tmp_path / "manifest.yaml"
    path.write_text(text)
    return manifests.read_manifest(path)


def test_objects_come_in_an_order_that_can_be_applied(tmp_path: Path) -> None:
    kinds = [each["kind"] for each in manifests.in_order(written(tmp_path))]
    assert kinds == ["Namespace", "RoleBinding", "ConfigMap", "Deployment"]


def test_another_namespace_changes_where_things_live_who_is_bound_and_names_of_services(tmp_path: Path) -> None:
    moved = {each["kind"]: each for each in manifests.moved(written(tmp_path), "prod")}
    assert moved["Namespace"]["metadata"]["name"] == "prod"
    assert moved["RoleBinding"]["subjects"][0]["namespace"] == "prod"
    assert moved["RoleBinding"]["metadata"]["namespace"] == "prod"
    assert "onlinerlhf-rollout.prod.svc.cluster.local" in moved["ConfigMap"]["data"]["config.toml"]
    # Names stay: only the namespace changes.
    assert moved["Deployment"]["metadata"]["name"] == "onlinerlhf-gateway"


def test_a_manifest_of_several_namespaces_is_refused(tmp_path: Path) -> None:
    two = [*written(tmp_path), {"kind": "Pod", "metadata": {"name": "x", "namespace": "other"}}]
    with pytest.raises(ConfigError, match=r"several namespaces \(onlinerlhf, other\)"):
        manifests.moved(two, "prod")


@pytest.mark.parametrize(
    ("old", "registry", "tag", "new"),
    [
        ("onlinerlhf-gateway:0.1.0", "r.example/x", "2", "r.example/x/onlinerlhf-gateway:2"),
        ("onlinerlhf-gateway:0.1.0", "r.example:5000/", None, "r.example:5000/onlinerlhf-gateway:0.1.0"),
        ("r.example:5000/a/onlinerlhf-learner", None, "2", "r.example:5000/a/onlinerlhf-learner:2"),
        ("r.example/onlinerlhf-learner@sha256:ab", None, "2", "r.example/onlinerlhf-learner:2"),
        ("r.example:5000/onlinerlhf-learner:1", None, None, "r.example:5000/onlinerlhf-learner:1"),
        ("redis:7.4", "r.example/x", "2", "redis:7.4"),
    ],
)
def test_the_platforms_images_take_registry_and_tag_and_others_stay(
    old: str, registry: str | None, tag: str | None, new: str
) -> None:
    thing = {"spec": {"containers": [{"image": old}]}}
    assert manifests.with_images([thing], registry=registry, tag=tag)[0]["spec"]["containers"][0]["image"] == new


def test_the_redis_secret_is_the_one_that_the_pods_read(tmp_path: Path) -> None:
    assert manifests.redis_secret(written(tmp_path)) == ("onlinerlhf-redis-auth", "url")
    assert manifests.own_redis(written(tmp_path)) is None


def test_a_new_secret_has_one_random_password_in_every_form() -> None:
    first, second = (new_redis_secret("s", url_key="url", host="onlinerlhf-redis")["data"] for _ in range(2))
    assert first != second
    plain = {key: base64.b64decode(value).decode() for key, value in first.items()}
    password = plain["password"]
    assert len(password) == 64
    assert plain["url"] == f"redis://:{password}@onlinerlhf-redis:6379/0"
    assert plain["auth.conf"] == f"requirepass {password}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{ template }}", "is not YAML"),
        ("kind: Pod", "document 1 has no apiVersion"),
        ("", "holds no objects"),
        ("- a\n- b", "document 1"),
    ],
)
def test_what_is_no_manifest_is_refused_with_words(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        written(tmp_path, text)


def test_lists_are_taken_apart(tmp_path: Path) -> None:
    text = "kind: List\napiVersion: v1\nitems: [{apiVersion: v1, kind: Pod, metadata: {name: x}}]"
    assert [each["kind"] for each in written(tmp_path, text)] == ["Pod"]


def test_an_unknown_values_set_lists_those_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "deploy" / "manifests"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("")
    assert manifests.find_manifests("mine") == (folder / "mine.yaml",)
    (folder / "crds.yaml").write_text("")
    assert manifests.find_manifests("mine") == (folder / "crds.yaml", folder / "mine.yaml")
    with pytest.raises(ConfigError, match=r"no values set 'other'; there are: .*mine") as refused:
        manifests.find_manifests("other")
    assert "crds" not in str(refused.value)
