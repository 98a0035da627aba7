"""Components, readiness and who is told."""

import asyncio
import logging

import pytest
from prometheus_client import REGISTRY

from onlinerlhf.core.errors import WaitTimeout
from onlinerlhf.runtime.health import Health


class Clock:
    """Time that tests move."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_ready_means_all_components_are_ok_and_no_drain_has_begun() -> None:
    health = Health("room")
    assert health.ready()
    health.set("redis", ok=True)
    health.set("engine", ok=False, reason="loading")
    assert not health.ready()
    health.set("engine", ok=True)
    assert health.ready()
    health.begin_drain()
    assert not health.ready() and health.draining


def test_components_tell_since_when_and_why() -> None:
    clock = Clock()
    health = Health("room", clock=clock)
    health.set("redis", ok=False, reason="cannot be reached")
    clock.now = 103.0
    health.set("redis", ok=False, reason="is loading its data")
    clock.now = 105.0
    [component] = health.components()
    assert (component.name, component.ok, component.reason) == ("redis", False, "is loading its data")
    assert component.since_seconds == 5.0
    health.set("redis", ok=True, reason="ignored")
    [component] = health.components()
    assert (component.ok, component.reason, component.since_seconds) == (True, "", 0.0)
    assert health.uptime_seconds == 5.0
    assert REGISTRY.get_sample_value("onlinerlhf_component_up", {"room": "room", "component": "redis"}) == 1


def test_only_changes_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    health = Health("room")
    with caplog.at_level(logging.INFO):
        for ok in (True, True, False, False, True):
            health.set("redis", ok=ok, reason="cannot be reached")
    assert [record.message for record in caplog.records] == ["component not ok", "component ok again"]


async def test_waiting_for_readiness_ends_with_it_or_names_what_is_missing() -> None:
    health = Health("room")
    health.set("engine", ok=False, reason="loading")
    with pytest.raises(WaitTimeout, match=r"^room was not ready after 0\.01 s: engine \(loading\)$"):
        await health.wait_ready(0.01)
    async with asyncio.timeout(1), asyncio.TaskGroup() as group:
        group.create_task(health.wait_ready(1))
        await asyncio.sleep(0)
        health.set("engine", ok=True)


def test_what_only_learning_needs_does_not_take_users_away() -> None:
    health = Health("gateway", learning_only=("redis", "feeder"))
    health.set("tokenizer", ok=True)
    health.set("redis", ok=False, reason="cannot be reached")
    health.set("feeder", ok=False, reason="failed, is restarted")
    assert not health.ready() and health.ready_for_users()
    health.set("tokenizer", ok=False, reason="gone")
    assert not health.ready_for_users()
    health.set("tokenizer", ok=True)
    health.begin_drain()
    assert not health.ready_for_users()


def test_a_process_is_alive_until_it_says_that_it_is_stalled_whatever_its_peers_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    health = Health("scaler")
    health.set("redis", ok=False, reason="cannot be reached")
    health.begin_drain()
    assert health.alive
    caplog.clear()
    with caplog.at_level(logging.INFO):
        for reason in ("no turn for 60 s", "no turn for 60 s", None, None):
            changed = health.changed
            health.stall(reason)
            assert health.alive is (reason is None)
    assert [record.message for record in caplog.records] == ["stalled", "no longer stalled"]
    assert not changed.is_set()
