"""Objects that the suite makes beside the platform, and the quick variant of its manifest."""

import base64
import re
import tomllib
from collections.abc import Sequence
from typing import Any, Final

import yaml

CONFIG: Final = "config.toml"
SAMPLES_AHEAD: Final = 2_048
CLIENT: Final = "test-client"
KEY_SECRET: Final = "test-client-key"
POOL: Final = {"maxReplicas": 3, "samplesPerReplica": 8, "scaleDownSeconds": 60}
"""Small enough that a few dozen prompts move the size, and minutes bring it back."""


def quick_manifest(text: str, *, shared_storage_class: str = "") -> str:
    """The minimal set with a pool that reacts to little work, and a learner that does not hold it back.

    With a storage class that many nodes share, the models' volume is of it, and pods may move to other nodes.
    """
    objects = [each for each in yaml.safe_load_all(text) if each]
    for thing in objects:
        if thing["kind"] == "RolloutPool":
            thing["spec"].update(POOL)
        if thing["kind"] == "ConfigMap" and CONFIG in thing["data"]:
            ahead = f"max_samples_ahead = {SAMPLES_AHEAD}"
            thing["data"][CONFIG] = re.sub(r"max_samples_ahead = \d+", ahead, thing["data"][CONFIG])
        if thing["kind"] == "PersistentVolumeClaim" and shared_storage_class:
            thing["spec"].update(storageClassName=shared_storage_class, accessModes=["ReadWriteMany"])
        if "template" in thing.get("spec", {}) and shared_storage_class:
            # All that it holds there: that the pods stay beside each other.
            thing["spec"]["template"]["spec"].pop("affinity", None)
    return yaml.safe_dump_all(objects, sort_keys=False)


def run_id_of(text: str) -> str:
    """The run that a manifest's pods work for."""
    for thing in yaml.safe_load_all(text):
        if thing and thing["kind"] == "ConfigMap" and CONFIG in thing["data"]:
            return str(tomllib.loads(thing["data"][CONFIG])["run"]["id"])
    raise ValueError(f"no ConfigMap with {CONFIG}")


def key_secret(key: str) -> dict[str, Any]:
    """Of the client's API key."""
    data = {"key": base64.b64encode(key.encode()).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": KEY_SECRET}, "type": "Opaque", "data": data}


def client_policy() -> dict[str, Any]:
    """The namespace is closed by default; this pod may call out."""
    spec = {"podSelector": {"matchLabels": {"app": CLIENT}}, "policyTypes": ["Egress"], "egress": [{}]}
    metadata = {"name": CLIENT}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def client_pod(image: str, *, pull_secrets: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Sleeps until commands are run in it; admitted under `restricted`. It has none of the platform's labels."""
    security = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    container = {
        "name": "client",
        "image": image,
        "command": ["/opt/venv/bin/python", "-c", "import time; time.sleep(86400)"],
        "env": [{"name": "ONLINERLHF_API_KEY", "valueFrom": {"secretKeyRef": {"name": KEY_SECRET, "key": "key"}}}],
        "securityContext": security,
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "500m", "memory": "256Mi"}},
    }
    spec = {
        "containers": [container],
        "imagePullSecrets": list(pull_secrets),
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": CLIENT, "labels": {"app": CLIENT}}, "spec": spec}


def review(namespace: str, user: str, group: str, resource: str, verb: str) -> dict[str, Any]:
    """May this user do that? As `kubectl auth can-i --as` asks."""
    name, _, subresource = resource.partition("/")
    attributes = {"namespace": namespace, "group": group, "resource": name, "verb": verb}
    if subresource:
        attributes["subresource"] = subresource
    spec = {"user": user, "resourceAttributes": attributes, "groups": ["system:authenticated"]}
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}


def eviction(pod: str, namespace: str) -> dict[str, Any]:
    """As `kubectl drain` sends it."""
    return {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
