"""Pods die, are evicted and drained under load: no sample is lost or doubled, and users are answered."""

import secrets
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from cluster.objects import eviction
from cluster.platform import Platform, eventually

LOAD_SECONDS = 60


def under_load(pool: ThreadPoolExecutor, platform: Platform) -> "Future[dict[str, Any]]":
    order = {"prompts": 5, "answers": 1, "tag": f"load{secrets.token_hex(3)}", "seconds": LOAD_SECONDS}
    return pool.submit(platform.in_client, order, seconds=LOAD_SECONDS + 500)


def accounted_for(platform: Platform, samples: list[str]) -> None:
    """Counters equal a recount from every sample's state, and none of ours is in a state that nobody knows."""
    ledger = platform.ledger(samples)
    assert ledger["imbalance"] == 0

    def settled() -> bool:
        # The two are not read at one moment: while samples move they may differ.
        found = platform.ledger(samples)
        return bool(found["counts"] == found["audit"])

    eventually(settled, what="counters to equal a recount", seconds=300, every=1)
    words = ("pool", "prompts", "rollouts", "scored", "trained", "dropped")
    for sample, state in platform.ledger(samples)["states"].items():
        assert state is None or state.startswith(words), (sample, state)


@pytest.mark.parametrize(
    ("room", "grace_seconds"),
    [
        ("rollout", None),
        ("reward", None),
        ("learner", None),
        ("gateway", None),
        ("scaler", None),
        ("redis", None),
        # Killed at once, without a drain. Of those that own a volume a second pod must not start beside the first.
        ("rollout", 0),
        ("reward", 0),
    ],
)
def test_a_pod_deleted_under_load_loses_nothing(platform: Platform, room: str, grace_seconds: int | None) -> None:
    platform.wait_until_whole()
    with ThreadPoolExecutor(1) as threads:
        load = under_load(threads, platform)
        # Some of the load is on its way by then.
        time.sleep(LOAD_SECONDS / 6)
        options = {} if grace_seconds is None else {"grace_period_seconds": grace_seconds}
        platform.core.delete_namespaced_pod(platform.ready_pod(room), platform.namespace, **options)
        found = load.result(timeout=LOAD_SECONDS + 600)
    platform.wait_until_whole()
    errors = [each["error"] for each in found["answers"] if "error" in each]
    # With one worker, or without Redis, some answers fail; before and after they do not.
    assert len(errors) < len(found["answers"]), errors
    assert found["samples"]
    accounted_for(platform, found["samples"])


def test_a_drained_worker_is_replaced_and_loses_nothing(platform: Platform) -> None:
    platform.wait_until_whole()
    with ThreadPoolExecutor(1) as threads:
        load = under_load(threads, platform)
        ran = platform.k8s("drain", platform.ready_pod("rollout"), "--timeout", "900")
        found = load.result(timeout=LOAD_SECONDS + 600)
    assert ran.code == 0, ran.output
    assert "whole again" in ran.output
    accounted_for(platform, found["samples"])


def test_a_node_drained_under_load_loses_nothing(platform: Platform) -> None:
    """Where volumes hold the pods to their node they come back to it; else it is cordoned, and they move."""
    platform.wait_until_whole()
    node = platform.pods("rollout")[0].spec.node_name
    cordons = may_move(platform, node)
    if cordons:
        platform.core.patch_node(node, {"spec": {"unschedulable": True}})
    try:
        with ThreadPoolExecutor(1) as threads:
            load = under_load(threads, platform)
            for pod in platform.pods():
                if pod.spec.node_name == node and pod.status.phase == "Running":
                    evict = partial(evicted, platform, pod.metadata.name)
                    eventually(evict, what=f"eviction of {pod.metadata.name}", seconds=900, every=5)
            found = load.result(timeout=LOAD_SECONDS + 600)
        platform.wait_until_whole(seconds=1_200)
    finally:
        if cordons:
            platform.core.patch_node(node, {"spec": {"unschedulable": None}})
    if cordons:
        assert all(pod.spec.node_name != node for pod in platform.pods() if pod.status.phase == "Running")
    accounted_for(platform, found["samples"])


def may_move(platform: Platform, node: str) -> bool:
    """Whether there is another node, and no volume that only this one can have."""
    others = [
        each
        for each in platform.core.list_node().items
        if each.metadata.name != node and not each.spec.unschedulable and not each.spec.taints
    ]
    claims = platform.core.list_namespaced_persistent_volume_claim(platform.namespace).items
    models = next(each for each in claims if each.metadata.name.endswith("-models"))
    volumes = [platform.core.read_persistent_volume(each.spec.volume_name) for each in claims]
    tied = any("kubernetes.io/hostname" in str(each.spec.node_affinity) for each in volumes)
    return bool(others) and not tied and "ReadWriteMany" in models.spec.access_modes


def evicted(platform: Platform, name: str) -> bool:
    """429: the disruption budget wants the others back first."""
    try:
        platform.core.create_namespaced_pod_eviction(name, platform.namespace, eviction(name, platform.namespace))
    except ApiException as error:
        if error.status == 429:
            return False
        if error.status != 404:
            raise
    return True
