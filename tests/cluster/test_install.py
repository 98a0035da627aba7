"""The minimal set installs in one command, under the `restricted` standard, and again without a change."""

import os

from cluster.conftest import REPOSITORY, TAG
from cluster.platform import Platform, is_ready, last_json

ROOMS = ("gateway", "rollout", "reward", "learner", "redis", "scaler")


def test_every_room_is_ready_in_a_namespace_that_enforces_the_restricted_standard(platform: Platform) -> None:
    labels = platform.core.read_namespace(platform.namespace).metadata.labels
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for room in ROOMS:
        pods = platform.pods(room)
        assert pods and all(is_ready(pod) for pod in pods), room


def test_pods_run_as_nobody_special_on_a_root_that_cannot_be_written(platform: Platform) -> None:
    for room in ("gateway", "rollout", "reward", "learner", "scaler"):
        pod = platform.pods(room)[0].metadata.name
        script = "import os; print(os.getuid(), os.access('/', os.W_OK), os.access('/opt/venv', os.W_OK))"
        assert platform.run_in(pod, ["/opt/venv/bin/python", "-c", script]).split() == ["10001", "False", "False"]


def test_installing_again_changes_no_workload(platform: Platform) -> None:
    images = ["--registry", os.environ[REPOSITORY], "--tag", os.environ[TAG]]
    before = {pod.metadata.uid for pod in platform.pods()}
    ran = platform.k8s("install", *platform.manifest_options, *images)
    assert ran.code == 0, ran.output
    assert "secret/onlinerlhf-redis-auth kept" in ran.output
    after = {pod.metadata.uid for pod in platform.pods()}
    assert {pod.metadata.uid for pod in platform.pods("redis")} <= before & after


def test_a_dry_run_changes_nothing(platform: Platform) -> None:
    ran = platform.k8s("install", *platform.manifest_options, "--dry-run", "--tag", "no-such-tag")
    assert ran.code == 0, ran.output
    images = {container.image for pod in platform.pods("gateway") for container in pod.spec.containers}
    assert not any(image.endswith("no-such-tag") for image in images)


def test_status_tells_who_leads_and_why_the_pool_has_its_size(platform: Platform) -> None:
    found = last_json(platform.k8s("status", "--json").output)
    assert found["scaler"]["is_current"] and found["scaler"]["holder"]
    (pool,) = found["pools"]
    assert pool["reason"] and pool["message"]
    assert pool["ready"] == pool["current"] == pool["desired"]


def test_logs_of_a_room_carry_its_pods_names(platform: Platform) -> None:
    ran = platform.k8s("logs", "gateway", "--tail", "5")
    assert ran.code == 0, ran.output
    names = [pod.metadata.name for pod in platform.pods("gateway")]
    assert all(any(line.startswith(name) for name in names) for line in ran.output.splitlines() if line)
