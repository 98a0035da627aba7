"""What a pool's status says, and when it is written."""

from typing import Any

import pytest

from onlinerlhf.scaler.observation import Decision, Pipeline, PoolSpec, Reason, Worker
from onlinerlhf.scaler.pools import Scale
from onlinerlhf.scaler.status import patch_of, rounded, status_of
from onlinerlhf.scaler.view import Trouble, View

PIPELINE = Pipeline(num_waiting=1230, num_in_flight=4, num_ahead=9, max_samples_ahead=64, oldest_seconds=83.4)


def a_view(reason: Reason = Reason.BACKLOG, *, old: dict[str, Any] | None = None, **parts: Any) -> View:
    meta = {"name": "default", "uid": "u-1", "generation": 3}
    workers = (
        Worker(name="a", ready=True, num_in_flight=4, version=9),
        Worker(name="b", ready=True, version=8),
        Worker(name="c", ready=False, version=2),
        Worker(name="d", ready=True, version=0, answered=False),
    )
    fields: dict[str, Any] = {
        "spec": PoolSpec(name="default", deployment="rollout", max_replicas=4),
        "scale": Scale(replicas=4, num_pods=4, selector="app=rollout", resource_version="7"),
        "workers": workers,
        "decision": Decision(pool="default", replicas=3, reason=reason, message="why"),
    }
    return View(pool={"metadata": meta, "status": old or {}}, **(fields | parts))


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]}


@pytest.mark.parametrize(
    ("value", "shown"), [(0, 0), (7, 7), (83.4, 83), (100, 100), (1234, 1200), (98_765, 99_000), (0.4, 0)]
)
def test_figures_have_two_leading_digits(value: float, shown: int) -> None:
    assert rounded(value) == shown


def test_a_healthy_pool_says_so() -> None:
    status = status_of(a_view(), PIPELINE, resized="t0", now="t1")
    assert conditions(status) == {
        "Ready": ("True", "PodsReady"),
        "Degraded": ("False", "AsExpected"),
        "ScalingLimited": ("False", "WithinBounds"),
    }
    assert {key: status[key] for key in ("observedGeneration", "replicas", "readyReplicas", "desiredReplicas")} == {
        "observedGeneration": 3,
        "replicas": 4,
        "readyReplicas": 3,
        "desiredReplicas": 3,
    }
    assert (status["backlog"], status["oldestSeconds"], status["inFlight"]) == (1200, 83, 4)
    # The lowest version among the ready workers that said one.
    assert status["policyVersion"] == 8
    assert status["lastScaleTime"] == "t0"


def test_without_signals_no_version_is_told_rather_than_0() -> None:
    assert status_of(a_view(), None, resized=None, now="t1")["policyVersion"] is None


@pytest.mark.parametrize("reason", [Reason.AT_MAXIMUM, Reason.LEARNER_BOUND])
def test_bounds_that_keep_a_pool_small_are_a_condition(reason: Reason) -> None:
    status = status_of(a_view(reason), PIPELINE, resized=None, now="t1")
    assert conditions(status)["ScalingLimited"] == ("True", reason.value)


def test_pods_that_are_missing_make_it_not_ready() -> None:
    view = a_view(decision=Decision(pool="default", replicas=4, reason=Reason.BACKLOG, message="why"))
    assert conditions(status_of(view, PIPELINE, resized=None, now="t1"))["Ready"] == ("False", "PodsNotReady")


def test_those_cordoned_need_not_be_ready() -> None:
    """Of a, b and d, which are ready, and c, which is not."""

    def ready(replicas: int, *cordon: str) -> tuple[str, str]:
        decision = Decision(pool="default", replicas=replicas, reason=Reason.WORK_IN_HAND, message="", cordon=cordon)
        return conditions(status_of(a_view(decision=decision), PIPELINE, resized=None, now="t1"))["Ready"]

    assert ready(4, "c") == ("True", "PodsReady")
    assert ready(3, "c") == ("True", "PodsReady")
    assert ready(4, "a") == ("False", "PodsNotReady")


def test_without_signals_figures_are_not_shown_and_the_size_is() -> None:
    view = a_view(Reason.HOLDING, trouble=Trouble(reason="SignalsMissing", message="Redis cannot be reached"))
    status = status_of(view, None, resized=None, now="t1")
    assert conditions(status)["Degraded"] == ("True", "SignalsMissing")
    assert status["backlog"] is None and status["oldestSeconds"] is None
    assert (status["desiredReplicas"], status["reason"]) == (3, "Holding")


def test_without_its_deployment_a_pool_keeps_what_was_last_known_of_it() -> None:
    trouble = Trouble(reason="DeploymentMissing", message="there is none")
    view = a_view(old={"replicas": 2, "lastScaleTime": "t0"}, scale=None, decision=None, workers=(), trouble=trouble)
    status = status_of(view, PIPELINE, resized=None, now="t1")
    assert (status["replicas"], status["desiredReplicas"], status["lastScaleTime"]) == (2, None, "t0")
    assert (status["reason"], status["message"]) == ("DeploymentMissing", "there is none")


def test_a_conditions_time_moves_only_with_its_status() -> None:
    first = status_of(a_view(), PIPELINE, resized=None, now="t1")
    trouble = Trouble(reason="SignalsMissing", message="away")
    second = status_of(a_view(old=first, trouble=trouble), None, resized=None, now="t2")
    other = Trouble(reason="Forbidden", message="not allowed")
    third = status_of(a_view(old=second, trouble=other), None, resized=None, now="t3")
    times = {each["type"]: each["lastTransitionTime"] for each in third["conditions"]}
    assert times == {"Ready": "t1", "Degraded": "t2", "ScalingLimited": "t1"}


def test_what_changes_is_written_at_once_and_figures_alone_every_15_seconds() -> None:
    old = {"desiredReplicas": 3, "backlog": 10, "message": "backlog 10"}
    figures = {"desiredReplicas": 3, "backlog": 20, "message": "backlog 20"}
    assert patch_of(old, figures, seconds_since_write=14.0) is None
    assert patch_of(old, figures, seconds_since_write=15.0) == {"backlog": 20, "message": "backlog 20"}
    assert patch_of(old, figures | {"desiredReplicas": 4}, seconds_since_write=0.0) == (
        figures | {"desiredReplicas": 4}
    )
    assert patch_of(old, old, seconds_since_write=999.0) is None
    # What is not known any more is removed.
    assert patch_of(old, old | {"backlog": None}, seconds_since_write=99.0) == {"backlog": None}
