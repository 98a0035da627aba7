"""What the operator's commands say: pools, leadership, waits."""

import importlib.util
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner

from onlinerlhf.cli_k8s import k8s
from onlinerlhf.core.errors import InvalidInput, Unavailable, WaitTimeout
from onlinerlhf.scaler.commands.leadership import leadership_of
from onlinerlhf.scaler.commands.logs import Prefix, seconds_of
from onlinerlhf.scaler.commands.pools import pool_of
from onlinerlhf.scaler.commands.waiting import Patience, ago

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def lease(seconds_ago: float, holder: str = "a") -> dict[str, Any]:
    renewed = (NOW - timedelta(seconds=seconds_ago)).isoformat().replace("+00:00", "Z")
    return {"spec": {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 15}}


def pool(status: dict[str, Any] | None = None, **spec: Any) -> Any:
    return pool_of({"metadata": {"name": "x", "generation": 2}, "spec": {"maxReplicas": 4, **spec}, "status": status})


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_lease_is_current_until_its_duration_has_passed() -> None:
    assert leadership_of(lease(15), now=NOW, is_deployed=True).is_current
    assert not leadership_of(lease(16), now=NOW, is_deployed=True).is_current
    assert not leadership_of(lease(1, holder=""), now=NOW, is_deployed=True).is_current
    # A holder's clock may be ahead.
    assert leadership_of(lease(-3), now=NOW, is_deployed=True).is_current


def test_why_nobody_leads_is_told_apart() -> None:
    assert leadership_of(lease(90), now=NOW, is_deployed=True).words.startswith(
        "no scaler leads: a has been silent for 1m30s"
    )
    assert leadership_of(None, now=NOW, is_deployed=True).words.startswith("no scaler has ever led here")
    assert leadership_of(None, now=NOW, is_deployed=False).words.startswith("no scaler in this namespace")


def test_a_pools_mode_says_what_sets_its_size() -> None:
    assert pool(minReplicas=0).mode == "auto 0..4"
    assert pool(replicas=0).mode == "fixed 0"
    assert pool(replicas=3, paused=True).mode == "paused (fixed 3)"


def test_what_the_status_lacks_is_unknown_not_zero() -> None:
    bare = pool()
    assert (bare.desired, bare.backlog, bare.staleness, bare.last_scaled) == (None, None, None, None)
    assert not bare.is_seen


def test_troubles_are_conditions_that_hold_and_should_not_or_the_other_way_round() -> None:
    def condition(name: str, status: str) -> dict[str, str]:
        return {"type": name, "status": status, "reason": "r", "message": "m"}

    good = [condition("Ready", "True"), condition("Degraded", "False"), condition("ScalingLimited", "True")]
    assert pool({"conditions": good}).troubles == ()
    bad = [condition("Ready", "False"), condition("Degraded", "True")]
    assert [each.type for each in pool({"conditions": bad}).troubles] == ["Ready", "Degraded"]


async def test_a_wait_is_bounded_and_says_what_it_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    answers = iter(["pods", "pods", "pods", "nodes"])

    async def look() -> str:
        return next(answers, "nodes")

    patience = Patience(seconds=10, poll_seconds=2, clock=clock, sleep=clock.sleep)
    with pytest.raises(WaitTimeout, match="it: not within 10 s; last waited for: nodes"):
        await patience.until(look, what="it")
    assert clock.now == 10
    # One line for each new answer, not for each look.
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["pods", "nodes"]


async def test_an_api_server_that_is_away_for_a_moment_is_waited_for() -> None:
    clock, tries = Clock(), iter([Unavailable("away"), Unavailable("away"), None])

    async def look() -> str:
        if error := next(tries):
            raise error
        return ""

    assert await Patience(seconds=10, poll_seconds=2, clock=clock, sleep=clock.sleep).until(look, what="it") == 4


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0s"), (59.4, "59s"), (75, "1m15s"), (3600, "1h00m"), (90_061, "1d01h"), (-1, "0s")]
)
def test_lengths_of_time_are_short(seconds: float, words: str) -> None:
    assert ago(seconds) == words


def test_lengths_of_time_are_read_and_others_refused() -> None:
    assert [seconds_of(text) for text in ("90s", "10m", "2h", "1d")] == [90, 600, 7200, 86_400]
    for text in ("", "10", "0s", "-1m", "1w", "1h30m"):
        with pytest.raises(InvalidInput, match="--since takes"):
            seconds_of(text)


def test_without_the_packages_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    ran = CliRunner().invoke(k8s, ["status"])
    assert ran.exit_code == 1 and "pip install 'onlinerlhf[scaler]'" in ran.output


def test_pods_keep_their_colour_and_names_are_padded() -> None:
    prefix = Prefix(["a", "abc"])
    assert prefix.of("a").startswith("\x1b[36m") and "a   |" in prefix.of("a")
    assert prefix.of("abc") != prefix.of("a")
