"""The whole loop on real vLLM, Redis, gRPC and torch, and what a `kill -9` of each part does to it.

The tests share one platform and run in the order they are written in; the last one stops it.
"""

import asyncio
import json
import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from e2e.platform.real_platform import Load, Platform, check_every_sample
from onlinerlhf.gateway.access.callers import KeyClass, Scope
from onlinerlhf_client import (
    Answer,
    AsyncClient,
    Consent,
    ConsentMissing,
    InvalidInput,
    OnlineRLHFError,
    Timeouts,
    Unavailable,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

CHECKOUT = Path(__file__).resolve().parents[3]
PROMPTS = Path(os.environ.get("ONLINERLHF_PROMPTS", CHECKOUT.parent / "shared" / "data" / "instructgpt_prompts.jsonl"))
OUTAGE_SECONDS = 30.0


def test_the_loop_learns_from_prompts_and_serves_what_it_learned(platform: Platform) -> None:
    ids = Load(platform=platform, num_prompts=80).finish()
    check_every_sample(platform, ids)
    snapshot = platform.snapshot()
    assert snapshot.learner is not None
    assert snapshot.learner.version >= 4
    newest = snapshot.learner.version
    platform.wait(lambda: platform.snapshot().rollouts[0].version == newest, "the worker to take the newest version")
    assert platform.snapshot().rollouts[0].num_updates_applied >= 3


def test_every_real_prompt_gets_an_answer_and_a_receipt(platform: Platform) -> None:
    if not PROMPTS.exists():
        pytest.skip("no file of real prompts; ONLINERLHF_PROMPTS names one")
    texts = [json.loads(line)["prompt"] for line in PROMPTS.read_text(encoding="utf-8").splitlines()]

    async def ask_all() -> list[Answer]:
        turns = asyncio.Semaphore(16)  # the worker refuses users beyond its bound

        async def ask(text: str) -> Answer:
            async with turns:
                return await client.answer(text, user_id="ada", max_tokens=8, consent=consent)

        consent = Consent.shown_now("1")
        target, timeouts = platform.endpoints.gateway, Timeouts(total_seconds=120)
        async with (
            AsyncClient(target, api_key=platform.api_key, timeouts=timeouts) as client,
            asyncio.TaskGroup() as group,
        ):
            tasks = [group.create_task(ask(text)) for text in texts]
        return [task.result() for task in tasks]

    answers = asyncio.run(ask_all())
    receipts = [answer.sample_id for answer in answers]
    assert len(receipts) == len(set(receipts)) == len(texts)
    assert not any(answer.receipt.replayed for answer in answers)
    assert all(1 <= answer.completion.num_response_tokens <= 8 for answer in answers)
    assert all(answer.policy_version >= 1 for answer in answers)
    platform.wait(lambda: set(receipts) <= platform.decisions().keys(), "a verdict on every prompt", seconds=30)
    verdicts = {sample_id: platform.decisions()[sample_id] for sample_id in receipts}
    admitted = [sample_id for sample_id, verdict in verdicts.items() if verdict == "admitted"]
    # Some begin like others and count as duplicates of them; no other reason keeps any of these out.
    assert set(verdicts.values()) <= {"admitted", "duplicate"}
    assert len(admitted) > 0.8 * len(texts)
    assert set(receipts) & platform.states().keys() == set(admitted)
    check_every_sample(platform, admitted)


SECRET = "zanzibar"  # in every malformed prompt that has text, and in no error
MALFORMED = {
    "empty": (b"", InvalidInput, "empty"),
    "only whitespace": (b" \n\t ", InvalidInput, "empty"),
    "only invisible characters": ("\u200b\u2060\ufeff".encode(), InvalidInput, "empty"),
    "not UTF-8": (SECRET.encode() + b"\xff", InvalidInput, "not_utf8"),
    "cut in the middle of a character": (SECRET.encode() + "é".encode()[:1], InvalidInput, "not_utf8"),
    "a lone surrogate": (SECRET.encode() + b"\xed\xa0\x80", InvalidInput, "not_utf8"),
    "a NUL": (SECRET.encode() + b"\x00", InvalidInput, "control_character"),
    "an escape sequence": (SECRET.encode() + b"\x1b[31m", InvalidInput, "control_character"),
    "too many bytes": (SECRET.encode() * 5_000, InvalidInput, "too_large"),
    "too many tokens": (f"{SECRET} ".encode() * 600, InvalidInput, "too_many_tokens"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_prompt_gets_its_own_error(platform: Platform, name: str) -> None:
    text, kind, reason = MALFORMED[name]
    for call in ("submit", "answer"):
        with platform.client() as client, pytest.raises(OnlineRLHFError) as refused:
            getattr(client, call)(text, user_id="mallory", consent=Consent.shown_now("1"))
        assert (type(refused.value), refused.value.reason) == (kind, reason)
        assert SECRET not in str(refused.value)


def test_a_duplicate_is_not_trained_on_and_looks_to_its_sender_like_any_other_prompt(platform: Platform) -> None:
    consent = Consent.shown_now("1")
    with platform.client() as client:
        first = client.submit("Name three mountains.", user_id="ada", consent=consent)
        second = client.submit("name   three MOUNTAINS.", user_id="bob", consent=consent)
        seen = [client.get_sample(receipt.sample_id) for receipt in (first, second)]
    assert first.sample_id != second.sample_id
    assert [first.replayed, second.replayed] == [False, False]
    assert [(sample.state, sample.drop_reason, sample.trained_version) for sample in seen] == [
        ("received", None, None),
        ("received", None, None),
    ]
    assert second.sample_id not in platform.states()
    check_every_sample(platform, [first.sample_id])
    with platform.client(platform.make_key(Scope.GENERATE, Scope.ADMIN)) as admin:
        assert admin.get_sample(first.sample_id).state in ("trained", "dropped")


def test_without_consent_and_with_production_keys_prompts_are_answered_and_not_trained_on(platform: Platform) -> None:
    consent = Consent.shown_now("1")
    with platform.client() as client:
        with pytest.raises(ConsentMissing) as refused:
            client.submit("Name three trees.", user_id="ada", consent=None)
        assert refused.value.reason == "no_consent"
        answers = [client.answer("Name three trees.", user_id="ada")]
    with platform.client(platform.make_key(Scope.GENERATE, key_class=KeyClass.PRODUCTION)) as client:
        with pytest.raises(ConsentMissing) as refused:
            client.submit("Name three trees.", user_id="ada", consent=consent)
        assert refused.value.reason == "production_key"
        answers.append(client.answer("Name three trees.", user_id="ada", consent=consent))
    assert all(answer.completion.num_response_tokens >= 1 for answer in answers)
    samples = [answer.sample_id for answer in answers]
    platform.wait(lambda: set(samples) <= platform.decisions().keys(), "a verdict on both", seconds=30)
    assert [platform.decisions()[sample_id] for sample_id in samples] == ["no_consent", "production_key"]
    assert not set(samples) & platform.states().keys()


@pytest.mark.parametrize("name", ["gateway", "reward", "learner", "redis", "rollout-0"])
def test_kill_9_under_load_loses_nothing_and_trains_nothing_twice(platform: Platform, name: str) -> None:
    load = Load(platform=platform, num_prompts=128)
    load.wait_for_receipts(48)
    earlier = platform.snapshot()
    assert earlier.ledger is not None
    assert earlier.ledger.num_pending > 0
    before = platform.kill(name)
    platform.wait(lambda: platform.entry(name).restarts == before.restarts + 1, f"the restart of {name}")
    platform.wait(lambda: platform.entry(name).state == "ready", f"{name} to be ready again")
    check_every_sample(platform, load.finish())
    after = platform.entry(name)
    assert after.pid != before.pid
    assert after.address == before.address
    newest = platform.snapshot().learner
    assert earlier.learner is not None
    assert newest is not None
    assert newest.version > earlier.learner.version


def test_services_wait_while_redis_is_gone_and_go_on_when_it_is_back(platform: Platform) -> None:
    pid = platform.entry("redis").pid
    assert pid is not None
    production = platform.make_key(Scope.GENERATE, key_class=KeyClass.PRODUCTION)
    consent = Consent.shown_now("1")
    with platform.client(production) as client:
        # A key counts in an outage where it was seen to be good before.
        assert client.answer("Who answers?", user_id="ada").text is not None
    load = Load(platform=platform, num_prompts=96)
    load.wait_for_receipts(24)
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        platform.wait(lambda: _rooms_without_redis(platform) == set(ROOMS), "every room to miss Redis", seconds=25)
        with platform.client(production) as client:
            answer = client.answer("Who answers while Redis is gone?", user_id="ada", consent=consent)
        assert answer.completion.num_response_tokens >= 1
        with platform.client() as client, pytest.raises(Unavailable) as refused:
            client.answer("Who does not?", user_id="ada", consent=consent, timeout=3.0)
        assert (refused.value.reason, refused.value.retry_after_seconds) == ("unavailable", 2.0)
        time.sleep(max(0.0, OUTAGE_SECONDS - (time.monotonic() - began)))
    finally:
        os.kill(pid, signal.SIGCONT)
    platform.wait(lambda: _rooms_without_redis(platform) == set(), "every room to find Redis again", seconds=30)
    check_every_sample(platform, load.finish())
    assert answer.sample_id not in platform.states()
    assert platform.entry("redis").pid == pid


ROOMS = ("gateway", "learner", "reward", "rollout-0")


def _rooms_without_redis(platform: Platform) -> set[str]:
    """Rooms whose health says that Redis is not there, and why."""
    return {
        service.name
        for service in platform.snapshot().services
        for part in service.components
        if part.name == "redis" and not part.ok and part.reason
    }


def test_ctrl_c_drains_and_leaves_nothing_running(platform: Platform) -> None:
    Load(platform=platform, num_prompts=32).finish()
    pids = platform.pids()
    assert len(pids) >= 7  # up, warden, redis, and at least a process a room
    assert platform.stop() == 0
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []
    assert not (platform.run_dir / "endpoints.json").exists()
    # The keys stay, and go on counting where the run goes on.
    assert (platform.run_dir / "credentials.json").stat().st_mode & 0o777 == 0o600


def test_no_prompt_and_no_key_is_in_any_log(platform: Platform) -> None:
    logs = b"".join(path.read_bytes() for path in (platform.run_dir / "logs").iterdir()) + platform.output.read_bytes()
    assert b"decision" in logs
    for text in ("what is 7 plus one", "three mountains", "three MOUNTAINS", "three trees", "Who answers", SECRET):
        assert text.encode() not in logs
    assert re.search(rb"orlhf_[a-z]+_[0-9A-Za-z]{20,}", logs) is None
    assert platform.api_key.encode() not in logs
