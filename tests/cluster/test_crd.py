"""RolloutPool behaves as kubectl expects, and what makes no sense is refused with a sentence."""

import shutil
import subprocess
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from cluster.objects import POOL
from cluster.platform import GROUP, Platform, eventually

KUBECTL = shutil.which("kubectl")
needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="there is no kubectl")


def kubectl(platform: Platform, *arguments: str) -> str:
    command = [str(KUBECTL), "--kubeconfig", str(platform.kubeconfig), "-n", platform.namespace, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@needs_kubectl
def test_kubectl_explains_every_field(platform: Platform) -> None:
    text = kubectl(platform, "explain", "rolloutpools.spec")
    for field in ("deploymentName", "minReplicas", "maxReplicas", "replicas", "paused", "scaleDownSeconds"):
        assert field in text


@needs_kubectl
def test_kubectl_shows_mode_sizes_and_reason(platform: Platform) -> None:
    header, row, *_ = kubectl(platform, "get", "rp").splitlines()
    for column in ("MODE", "DESIRED", "REPLICAS", "READY", "BACKLOG", "REASON"):
        assert column in header
    assert row.startswith("default")


@needs_kubectl
def test_kubectl_scale_fixes_a_pool_and_removing_replicas_frees_it(platform: Platform) -> None:
    kubectl(platform, "scale", "rolloutpool/default", "--replicas=2")
    assert platform.pool()["spec"]["replicas"] == 2
    try:
        eventually(
            lambda: platform.pool().get("status", {}).get("desiredReplicas") == 2,
            what="the scaler to take the fixed size",
            seconds=60,
        )
    finally:
        platform.patch_pool({"replicas": None})
    assert "replicas" not in platform.pool()["spec"]


REFUSED: list[dict[str, Any]] = [
    {"minReplicas": 5, "maxReplicas": 2},
    {"replicas": -1},
    {"replicas": 1.5},
    {"maxReplicas": -1},
    {"deploymentName": "another"},
    {"samplesPerReplica": 0},
    {"scaleDownSeconds": -1},
]


@pytest.mark.parametrize("spec", REFUSED, ids=lambda spec: ",".join(f"{key}={value}" for key, value in spec.items()))
def test_what_makes_no_sense_is_refused(platform: Platform, spec: dict[str, Any]) -> None:
    with pytest.raises(ApiException) as refused:
        platform.patch_pool(spec)
    assert refused.value.status in (400, 422)


def test_a_pool_without_its_deployment_is_degraded_and_not_a_crash(platform: Platform) -> None:
    body = {
        "apiVersion": "/".join(GROUP),
        "kind": "RolloutPool",
        "metadata": {"name": "ghost"},
        "spec": {"deploymentName": "no-such-deployment", **POOL},
    }
    path = f"/apis/{GROUP[0]}/{GROUP[1]}/namespaces/{platform.namespace}/rolloutpools"
    platform.request("POST", path, body)

    def degraded() -> bool:
        conditions = platform.pool("ghost").get("status", {}).get("conditions") or []
        return any(each["type"] == "Degraded" and each["status"] == "True" for each in conditions)

    try:
        eventually(degraded, what="the Degraded condition", seconds=60)
        assert all(
            (status.restart_count == 0) for pod in platform.pods("scaler") for status in pod.status.container_statuses
        )
    finally:
        platform.request("DELETE", f"{path}/ghost")
