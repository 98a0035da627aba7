"""The Python clients against a scripted gateway on a real socket: keys, retries, limits, streams, feedback."""

import asyncio
import time
from typing import Any

import pytest

from clients.both import QUICK, both
from clients.fake_gateway import API_KEY, AWAY, FakeGateway, limited
from onlinerlhf_client import (
    AsyncClient,
    CallTimeout,
    Client,
    Consent,
    FinishReason,
    LimitReached,
    OnlineRLHFError,
    ServerError,
    Submission,
    Timeouts,
    Unauthenticated,
    Unavailable,
)

CONSENT = Consent(notice_version="1", shown_at_seconds=1_700_000_000.0)


@both
async def test_a_lost_call_is_tried_again_with_the_same_key(fake_gateway: FakeGateway, call: Any) -> None:
    fake_gateway.script["SubmitPrompt"] = [AWAY, AWAY]
    receipt = await call(fake_gateway.target, API_KEY, "submit", "a", user_id="ada", consent=CONSENT)
    assert receipt.sample_id == "sample-0"
    assert len({request.idempotency_key for request in fake_gateway.requests["SubmitPrompt"]}) == 1
    assert len(fake_gateway.requests["SubmitPrompt"]) == 3


@both
async def test_a_limit_is_waited_for_as_long_as_the_gateway_says(fake_gateway: FakeGateway, call: Any) -> None:
    fake_gateway.script["SubmitPrompt"] = [limited("0.300")]
    await call(fake_gateway.target, API_KEY, "submit", "a", user_id="ada", consent=CONSENT)
    first, second = fake_gateway.times["SubmitPrompt"]
    assert 0.3 <= second - first < 2.0


@both
async def test_a_limit_that_outlasts_the_call_is_raised_at_once(fake_gateway: FakeGateway, call: Any) -> None:
    fake_gateway.script["Generate"] = [limited("60.000")]
    began = time.monotonic()
    with pytest.raises(LimitReached) as limit:
        await call(fake_gateway.target, API_KEY, "answer", "a", user_id="ada")
    assert limit.value.retry_after_seconds == 60.0
    assert time.monotonic() - began < 2.0
    assert len(fake_gateway.requests["Generate"]) == 1


@both
async def test_a_cap_without_an_end_is_raised_at_once(fake_gateway: FakeGateway, call: Any) -> None:
    fake_gateway.script["SubmitPrompt"] = [limited(None)]
    with pytest.raises(LimitReached) as limit:
        await call(fake_gateway.target, API_KEY, "submit", "a", user_id="ada", consent=CONSENT)
    assert limit.value.retry_after_seconds is None
    assert len(fake_gateway.requests["SubmitPrompt"]) == 1


@both
async def test_an_answer_has_its_receipt_its_logprobs_and_its_end(fake_gateway: FakeGateway, call: Any) -> None:
    answer = await call(fake_gateway.target, API_KEY, "answer", "a", user_id="ada", stop=["x"], seed=7)
    assert (answer.text, answer.token_ids, answer.logprobs) == ("Hi", (72, 105), (-0.5, -0.25))
    assert (answer.sample_id, answer.finish_reason, answer.policy_version) == ("sample-0", FinishReason.STOP, 3)
    (request,) = fake_gateway.requests["Generate"]
    assert (list(request.stop), request.seed, request.HasField("consent")) == (["x"], 7, False)


@both
async def test_an_answer_is_tried_again_before_its_first_token(fake_gateway: FakeGateway, call: Any) -> None:
    fake_gateway.script["Generate"] = [AWAY, limited("0.050")]
    assert (await call(fake_gateway.target, API_KEY, "answer", "a", user_id="ada")).text == "Hi"
    assert len({request.idempotency_key for request in fake_gateway.requests["Generate"]}) == 1


@both
async def test_an_answer_that_breaks_off_is_not_tried_again(fake_gateway: FakeGateway, call: Any) -> None:
    fake_gateway.breaks_after_token = True
    with pytest.raises(Unavailable):
        await call(fake_gateway.target, API_KEY, "answer", "a", user_id="ada")
    assert len(fake_gateway.requests["Generate"]) == 1


@both
async def test_feedback_that_got_lost_is_given_again_under_its_key(fake_gateway: FakeGateway, call: Any) -> None:
    fake_gateway.script["SubmitFeedback"] = [AWAY]
    given = await call(fake_gateway.target, API_KEY, "feedback.thumb", "sample-0", up=True)
    assert not given.replayed
    first, second = fake_gateway.requests["SubmitFeedback"]
    assert first == second


@both
async def test_consent_is_withdrawn(fake_gateway: FakeGateway, call: Any) -> None:
    assert await call(fake_gateway.target, API_KEY, "withdraw_consent", "ada") == 3
    assert fake_gateway.requests["WithdrawConsent"][0].user_id == "ada"


@both
async def test_a_call_that_nobody_answers_ends_in_time(fake_gateway: FakeGateway, call: Any) -> None:
    fake_gateway.hangs = True
    began = time.monotonic()
    with pytest.raises(CallTimeout):
        await call(fake_gateway.target, API_KEY, "answer", "a", user_id="ada", timeout=0.2)
    assert time.monotonic() - began < 2.0
    await asyncio.wait_for(fake_gateway.cancelled.wait(), 5.0)


async def test_a_wrong_key_is_refused_and_shown_nowhere(fake_gateway: FakeGateway) -> None:
    async with AsyncClient(fake_gateway.target, api_key="orl_wrong_key") as client:
        with pytest.raises(Unauthenticated) as refused:
            await client.get_sample("sample-0")
        with pytest.raises(Unauthenticated):
            await client.answer("a", user_id="ada")
        with pytest.raises(Unauthenticated):
            await anext(client.submit_many([Submission(text="a", user_id="ada", consent=CONSENT)]))
    chain: BaseException | None = refused.value
    while chain is not None:
        assert "orl_wrong_key" not in repr(chain) + str(chain)
        chain = chain.__cause__


async def many(target: str, num: int, timeouts: Timeouts) -> list[OnlineRLHFError | None]:
    submissions = [Submission(text="a", user_id="ada", consent=CONSENT) for _ in range(num)]
    async with AsyncClient(target, api_key=API_KEY, timeouts=timeouts) as client:
        return [result.error async for result in client.submit_many(submissions, window=4)]


async def many_in_a_thread(target: str, num: int, timeouts: Timeouts) -> list[OnlineRLHFError | None]:
    def call() -> list[OnlineRLHFError | None]:
        submissions = [Submission(text="a", user_id="ada", consent=CONSENT) for _ in range(num)]
        with Client(target, api_key=API_KEY, timeouts=timeouts) as client:
            return [result.error for result in client.submit_many(submissions, window=4)]

    return await asyncio.to_thread(call)


both_many = pytest.mark.parametrize("submit", [many, many_in_a_thread])


@both_many
async def test_a_stream_of_prompts_waits_where_a_limit_says_so(fake_gateway: FakeGateway, submit: Any) -> None:
    fake_gateway.script["SubmitPrompts"] = [limited("0.300")]
    assert await submit(fake_gateway.target, 6, QUICK) == [None] * 6
    times, keys = fake_gateway.times["SubmitPrompts"], fake_gateway.requests["SubmitPrompts"]
    again = next(index for index in range(1, len(keys)) if keys[index] == keys[0])
    assert times[again] - times[0] >= 0.3


@both_many
async def test_a_long_limit_refuses_its_prompt_and_not_the_others(fake_gateway: FakeGateway, submit: Any) -> None:
    fake_gateway.script["SubmitPrompts"] = [limited("3600")]
    first, *others = await submit(fake_gateway.target, 6, QUICK)
    assert isinstance(first, LimitReached)
    assert first.retry_after_seconds == 3600.0
    assert others == [None] * 5


async def test_what_is_known_of_an_answer_comes_with_its_tokens(fake_gateway: FakeGateway) -> None:
    async with (
        AsyncClient(fake_gateway.target, api_key=API_KEY) as client,
        client.generate("a", user_id="ada", consent=CONSENT) as stream,
    ):
        with pytest.raises(ServerError, match="before the first token"):
            _ = stream.receipt
        assert (await anext(stream)).text == "H"
        assert stream.receipt.sample_id == "sample-0"
        assert [token.text async for token in stream] == ["i"]
        assert stream.completion.num_prompt_tokens == 5
    assert fake_gateway.requests["Generate"][0].consent.notice_version == "1"
