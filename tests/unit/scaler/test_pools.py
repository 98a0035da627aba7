"""RolloutPools, scales and pods as the API writes them."""

from typing import Any

import pytest

from onlinerlhf.core.errors import InvalidInput
from onlinerlhf.scaler.observation import PoolSpec, Worker
from onlinerlhf.scaler.pools import DELETION_COST, deletion_costs, living, mode_of, pod_of, rivals, scale_of, spec_of


def pool(name: str = "default", *, created: str = "2026-11-21T10:00:00Z", **spec: Any) -> dict[str, Any]:
    spec = {"deploymentName": "rollout", "maxReplicas": 4} | spec
    return {"metadata": {"name": name, "creationTimestamp": created}, "spec": spec}


def pod(name: str, *, cost: str | None = None, **parts: Any) -> dict[str, Any]:
    meta = {"name": name} | ({"annotations": {DELETION_COST: cost}} if cost is not None else {})
    return {"metadata": meta | parts.pop("metadata", {}), "status": parts}


def test_a_pool_that_says_little_has_the_defaults_of_the_crd() -> None:
    assert spec_of(pool()) == PoolSpec(
        name="default",
        deployment="rollout",
        min_replicas=1,
        max_replicas=4,
        fixed_replicas=None,
        paused=False,
        priority=0,
        samples_per_replica=64,
        users_per_replica=16,
        scale_down_seconds=60.0,
    )


def test_a_fixed_size_of_0_is_a_fixed_size() -> None:
    assert spec_of(pool(replicas=0)).fixed_replicas == 0
    assert mode_of(spec_of(pool(replicas=0))) == "Fixed"
    assert mode_of(spec_of(pool())) == "Automatic"
    assert mode_of(spec_of(pool(replicas=3, paused=True))) == "Paused"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"deploymentName": None}, "deploymentName is missing"),
        ({"maxReplicas": 2, "minReplicas": 3}, r"maxReplicas \(2\) is less than spec.minReplicas \(3\)"),
        ({"maxReplicas": -1, "minReplicas": 0}, "maxReplicas is -1"),
        ({"maxReplicas": 2.5}, r"maxReplicas is 2\.5"),
        ({"maxReplicas": "4"}, "maxReplicas is '4'"),
        ({"replicas": True}, "replicas is True"),
        ({"samplesPerReplica": 0}, "samplesPerReplica is 0; expected a whole number of at least 1"),
    ],
)
def test_what_the_crd_should_have_refused_is_refused_here(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        spec_of(pool(**spec))


def test_a_scale_without_replicas_is_0() -> None:
    scale = scale_of({"metadata": {"resourceVersion": "7"}, "spec": {}, "status": {"selector": "app=rollout"}})
    assert (scale.replicas, scale.num_pods, scale.selector, scale.resource_version) == (0, 0, "app=rollout", "7")


def test_pods_on_their_way_out_or_finished_do_not_count() -> None:
    pods = [
        pod("a", phase="Running"),
        pod("b", phase="Running", metadata={"deletionTimestamp": "2026-11-21T10:00:00Z"}),
        pod("c", phase="Failed"),
        pod("d", phase="Pending"),
    ]
    assert [each["metadata"]["name"] for each in living(pods)] == ["a", "d"]


def test_a_pod_is_ready_when_its_condition_says_so_and_may_have_no_address_yet() -> None:
    ready = pod_of(pod("a", podIP="10.0.0.7", conditions=[{"type": "Ready", "status": "True"}]))
    young = pod_of(pod("b", conditions=[{"type": "Ready", "status": "False"}]))
    assert (ready.address, ready.ready) == ("10.0.0.7", True)
    assert (young.address, young.ready) == ("", False)


def test_costs_are_samples_and_users_and_only_changes_are_written() -> None:
    workers = [
        Worker(name="a", num_in_flight=3, num_user_requests=2),
        Worker(name="b", num_in_flight=4),
        Worker(name="c"),
        Worker(name="d"),
        Worker(name="gone", num_in_flight=1),
    ]
    pods = [pod("a"), pod("b", cost="4"), pod("c"), pod("d", cost="9")]
    assert deletion_costs(pods, workers) == {"a": "5", "d": "0"}


def test_an_emptied_worker_costs_less_than_one_that_merely_has_nothing_and_one_that_is_not_done_costs_its_work() -> (
    None
):
    workers = [
        Worker(name="emptied", cordoned=True),
        Worker(name="slow", cordoned=True, num_in_flight=1),
        Worker(name="idle"),
    ]
    costs = deletion_costs([pod("emptied"), pod("slow"), pod("idle", cost="-1")], workers)
    assert costs == {"emptied": "-1", "slow": "1", "idle": "0"}


def test_a_pod_has_started_when_its_container_says_so() -> None:
    assert pod_of(pod("a", containerStatuses=[{"name": "rollout", "started": True}])).started
    assert not pod_of(pod("b", containerStatuses=[{"name": "rollout", "started": False}])).started
    assert not pod_of(pod("c")).started


def test_a_deployment_belongs_to_the_oldest_pool_that_names_it() -> None:
    pools = [
        pool("young", created="2026-11-21T10:00:02Z"),
        pool("other", deploymentName="spot"),
        pool("old", created="2026-11-21T10:00:01Z"),
        pool("twin", created="2026-11-21T10:00:01Z"),
    ]
    assert rivals(pools) == {"twin": "old", "young": "old"}
