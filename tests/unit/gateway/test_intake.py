import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar, cast

import pytest
from redis.exceptions import ResponseError

from onlinerlhf.core.errors import ConsentMissing, Unavailable
from onlinerlhf.gateway import metrics
from onlinerlhf.gateway.access.identity import Digests, HashKey
from onlinerlhf.gateway.admission.consent import ConsentClaim, Notices, TrainablePrompt
from onlinerlhf.gateway.admission.intake import Intake, Offer, Rules, Verdict
from onlinerlhf.gateway.admission.pool import Pool
from onlinerlhf.gateway.admission.refusals import PoolFull
from onlinerlhf.gateway.admission.splits import Splits
from onlinerlhf.gateway.pii.findings import Finding
from onlinerlhf.gateway.pii.policy import Policy
from onlinerlhf.runtime.redis import Patience
from trainables import DIGESTS, a_caller

T = TypeVar("T")


class ScriptedPool:
    """Answers as told, when it may."""

    def __init__(self, *outcomes: Verdict | Exception) -> None:
        self._outcomes = list(outcomes)
        self.admitted: list[TrainablePrompt] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def admit_all(self, trainables: Sequence[TrainablePrompt]) -> list[Verdict]:
        return [await self._admit(each) for each in trainables]

    async def _admit(self, trainable: TrainablePrompt) -> Verdict:
        await self.may_answer.wait()
        self.admitted.append(trainable)
        outcome = self._outcomes.pop(0) if self._outcomes else Verdict.ADMITTED
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class ScriptedScanner:
    """Finds nothing, or breaks."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    async def scan(self, text: str) -> list[Finding]:
        if self._error is not None:
            raise self._error
        return []

    async def close(self) -> None:
        """Nothing."""


class KnownKey:
    """Digests that need no Redis."""

    async def digests(self) -> Digests:
        return DIGESTS


async def no_patience(what: str, call: Callable[[], Awaitable[T]], *, give_up_seconds: float | None = None) -> T:
    return await call()


def intake_of(
    pool: ScriptedPool, *, scanner: ScriptedScanner | None = None, queue_bound: int = 10, on_admitted: Any = None
) -> Intake:
    rules = Rules(
        notices=Notices(versions=frozenset({"1"}), seconds=1e10),
        max_tokens=100,
        pii_policy=Policy.DROP,
        encode=lambda turns: (1,),
        splits=Splits(salt="1", valid_share=0.0, test_share=0.0),
    )
    return Intake(
        cast(Pool, pool),
        scanner or ScriptedScanner(),
        rules,
        cast(HashKey, KnownKey()),
        cast(Patience, no_patience),
        on_admitted=on_admitted or asyncio.Event(),
        queue_bound=queue_bound,
        num_workers=2,
    )


@asynccontextmanager
async def running(intake: Intake) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(intake.run(stop))
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(5):
            await task


OFFER = Offer(
    caller=a_caller(),
    sample_id="s1",
    turns=(("user", "Name three."),),
    token_ids=(1, 2, 3),
    claim=ConsentClaim(notice_version="1", shown_at_seconds=1_700_000_000.0),
)


def counted(verdict: Verdict) -> float:
    return float(metrics.VERDICTS.labels(verdict=verdict.value)._value.get())


async def test_a_submission_waits_for_its_verdict_and_wakes_the_feeder() -> None:
    on_admitted = asyncio.Event()
    before = counted(Verdict.ADMITTED)
    intake = intake_of(ScriptedPool(), on_admitted=on_admitted)
    assert await intake.admit(OFFER, give_up_seconds=5) is Verdict.ADMITTED
    assert on_admitted.is_set()
    assert counted(Verdict.ADMITTED) == before + 1


@pytest.mark.parametrize("verdict", [Verdict.DUPLICATE, Verdict.USER_CAP, Verdict.HELD_OUT])
async def test_what_depends_on_other_prompts_is_a_verdict_and_no_error(verdict: Verdict) -> None:
    on_admitted = asyncio.Event()
    assert await intake_of(ScriptedPool(verdict), on_admitted=on_admitted).admit(OFFER, give_up_seconds=5) is verdict
    assert not on_admitted.is_set()


@pytest.mark.parametrize("verdict", [Verdict.WITHDRAWN, Verdict.ERASED])
async def test_what_only_redis_knows_of_consent_is_raised_with_its_reason(verdict: Verdict) -> None:
    with pytest.raises(ConsentMissing) as caught:
        await intake_of(ScriptedPool(verdict)).admit(OFFER, give_up_seconds=5)
    assert caught.value.reason == verdict.value


async def test_a_lack_of_proof_is_raised_in_its_own_words() -> None:
    with pytest.raises(ConsentMissing, match="no consent was given") as caught:
        await intake_of(ScriptedPool()).admit(replace(OFFER, claim=None), give_up_seconds=5)
    assert caught.value.reason == "no_consent"


async def test_a_full_pool_says_when_to_come_again() -> None:
    with pytest.raises(PoolFull) as caught:
        await intake_of(ScriptedPool(Verdict.POOL_FULL)).admit(OFFER, give_up_seconds=5)
    assert caught.value.retry_after_seconds == 5.0


async def test_redis_away_or_slow_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await intake_of(ScriptedPool(Unavailable("away"))).admit(OFFER, give_up_seconds=5)
    with pytest.raises(Unavailable):
        await intake_of(ScriptedPool(ResponseError("wrong type"))).admit(OFFER, give_up_seconds=5)
    slow = ScriptedPool()
    slow.may_answer.clear()
    with pytest.raises(Unavailable, match=r"0\.1 s"):
        await intake_of(slow).admit(OFFER, give_up_seconds=0.05)


async def test_a_screen_that_breaks_means_not_learned_from_and_says_nothing_of_the_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = ScriptedPool()
    intake = intake_of(pool, scanner=ScriptedScanner(ValueError("a secret text")))
    assert await intake.admit(OFFER, give_up_seconds=5) is Verdict.SCREEN_FAILED
    assert pool.admitted == []
    assert "secret" not in caplog.text


async def test_an_answered_prompt_gets_its_verdict_later() -> None:
    pool = ScriptedPool(Verdict.ADMITTED, Verdict.DUPLICATE, Verdict.POOL_FULL, Verdict.WITHDRAWN)
    pool.may_answer.clear()
    intake = intake_of(pool)
    async with running(intake):
        waiting = [intake.offer(replace(OFFER, sample_id=f"s{number}")) for number in range(4)]
        await asyncio.sleep(0)
        assert not any(verdict.done() for verdict in waiting)
        pool.may_answer.set()
        verdicts = sorted([await verdict for verdict in waiting])
    assert verdicts == ["admitted", "duplicate", "pool_full", "withdrawn"]


async def test_an_offer_beyond_the_queue_is_overloaded_at_once_and_the_queued_are_judged() -> None:
    pool = ScriptedPool()
    intake = intake_of(pool, queue_bound=3)
    waiting = [intake.offer(replace(OFFER, sample_id=f"s{number}")) for number in range(5)]
    assert [verdict.done() for verdict in waiting] == [False, False, False, True, True]
    assert await waiting[3] is Verdict.OVERLOADED
    async with running(intake):
        assert [await verdict for verdict in waiting[:3]] == [Verdict.ADMITTED] * 3


async def test_an_offer_without_proof_takes_no_place_in_the_queue() -> None:
    intake = intake_of(ScriptedPool(), queue_bound=1)
    assert await intake.offer(replace(OFFER, claim=None)) is Verdict.NO_CONSENT
    assert not intake.offer(OFFER).done()


async def test_what_was_offered_before_the_end_is_judged_and_what_comes_after_is_not() -> None:
    pool = ScriptedPool()
    intake = intake_of(pool)
    async with running(intake):
        waiting = [intake.offer(replace(OFFER, sample_id=f"s{number}")) for number in range(5)]
    assert {verdict.result() for verdict in waiting} == {Verdict.ADMITTED}
    assert await intake.offer(OFFER) is Verdict.UNAVAILABLE


async def test_workers_cut_short_leave_nobody_waiting() -> None:
    pool = ScriptedPool()
    pool.may_answer.clear()
    intake = intake_of(pool)
    task = asyncio.create_task(intake.run(asyncio.Event()))
    waiting = [intake.offer(replace(OFFER, sample_id=f"s{number}")) for number in range(5)]
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert {verdict.result() for verdict in waiting} == {Verdict.UNAVAILABLE}


async def test_a_caller_that_no_longer_waits_disturbs_nobody() -> None:
    pool = ScriptedPool()
    pool.may_answer.clear()
    intake = intake_of(pool)
    async with running(intake):
        first, second = intake.offer(OFFER), intake.offer(replace(OFFER, sample_id="s2"))
        await asyncio.sleep(0.01)
        first.cancel()
        pool.may_answer.set()
        assert await second is Verdict.ADMITTED
