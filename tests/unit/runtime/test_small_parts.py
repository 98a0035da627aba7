"""Keys, counts and command lines."""

from pathlib import Path

import pytest

from onlinerlhf.core import errors
from onlinerlhf.core.errors import StartupError
from onlinerlhf.core.samples import DropReason, Stage
from onlinerlhf.runtime.embedded_redis import redis_server_command
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import count_states, dropped_state, trained_state
from onlinerlhf.runtime.statuses import code_of, error_of


def test_every_key_of_a_run_has_its_hash_tag() -> None:
    keys = RunKeys("r1")
    assert keys.stream(Stage.PROMPTS) == "onlinerlhf:{r1}:stream:prompts"
    assert keys.dead(Stage.PROMPTS) == "onlinerlhf:{r1}:stream:prompts.dead"
    assert keys.idempotency("u", "k") == "onlinerlhf:{r1}:idempotency:u:k"
    assert keys.group == "workers"


def test_states_are_counted_by_what_they_begin_with() -> None:
    states = ["pool", "prompts", "trained", trained_state(2), trained_state(9), dropped_state(DropReason.STALE)]
    counts = count_states(states)
    assert (counts.admitted, counts.trained, counts.dropped) == (6, 3, {"stale": 1})
    assert counts.pending == {Stage.POOL: 1, Stage.PROMPTS: 1, Stage.ROLLOUTS: 0, Stage.SCORED: 0}
    assert counts.imbalance == 0


def test_a_state_that_is_none_shows_as_imbalance() -> None:
    assert count_states(["pool", "nowhere"]).imbalance == 1


def test_every_error_that_can_cross_the_wire_comes_back_as_itself() -> None:
    for kind in vars(errors).values():
        if not isinstance(kind, type) or not issubclass(kind, errors.OnlineRLHFError) or issubclass(kind, StartupError):
            continue
        reason = {"InvalidInput": "empty", "MalformedRecord": "malformed"}.get(kind.__name__)
        if reason is None:
            reason = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in kind.__name__)[1:]
        if kind is not errors.OnlineRLHFError:
            assert type(error_of(code_of(kind), reason, "x")) is kind


def test_a_reason_cannot_turn_one_code_into_another() -> None:
    error = error_of(code_of(errors.NotFound), "checksum_mismatch", "x")
    assert type(error) is errors.NotFound


def test_the_embedded_server_listens_on_loopback_loses_nothing_and_evicts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ONLINERLHF_REDIS_SERVER", raising=False)
    line = " ".join(redis_server_command(tmp_path, 7000))
    for part in ("--bind 127.0.0.1", "--port 7000", "--appendfsync always", "--maxmemory-policy noeviction"):
        assert part in line
    assert str(tmp_path) in line
    monkeypatch.setenv("ONLINERLHF_REDIS_SERVER", "/bin/sh")
    assert redis_server_command(tmp_path, 1)[0] == "/bin/sh"
    monkeypatch.setenv("ONLINERLHF_REDIS_SERVER", str(tmp_path / "absent"))
    with pytest.raises(StartupError, match="which is no program"):
        redis_server_command(tmp_path, 1)
