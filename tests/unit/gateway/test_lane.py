"""The user lane without a network: what is asked of a rollout worker, and what is made of its stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import pytest

from onlinerlhf.core.errors import Unavailable
from onlinerlhf.core.samples import FinishReason, VersionSpan
from onlinerlhf.gateway.requests.lane import AnswerEnd, AnswerSpec, AnswerTokens, PromptLogprobs, TopLogprobs, UserLane
from onlinerlhf.v1 import records_pb2, rollout_pb2

SPEC = AnswerSpec(max_tokens=8, temperature=0.5)
END = rollout_pb2.RolloutGenerateResponse(
    finish_reason=records_pb2.FINISH_REASON_STOP, version_spans=[records_pb2.VersionSpan(version=3, num_tokens=2)]
)


class FakeCall:
    def __init__(self, responses: list[rollout_pb2.RolloutGenerateResponse], error: Exception | None) -> None:
        self.responses = responses
        self.error = error
        self.cancelled = False
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def __aiter__(self) -> AsyncIterator[rollout_pb2.RolloutGenerateResponse]:
        for response in self.responses:
            yield response
        await self.may_end.wait()
        if self.cancelled:
            # As a gRPC call does.
            raise asyncio.CancelledError
        if self.error is not None:
            raise self.error

    def cancel(self) -> None:
        self.cancelled = True
        self.may_end.set()


class FakeChannel:
    """Answers every call with the same stream, and remembers how it was called."""

    def __init__(self, *responses: rollout_pb2.RolloutGenerateResponse, error: Exception | None = None) -> None:
        self.call = FakeCall(list(responses), error)
        self.requests: list[rollout_pb2.RolloutGenerateRequest] = []
        self.options: dict[str, Any] = {}

    def unary_stream(self, *_: Any, **__: Any) -> Any:
        def start(request: rollout_pb2.RolloutGenerateRequest, **options: Any) -> FakeCall:
            self.requests.append(request)
            self.options = options
            return self.call

        return start

    def unary_unary(self, *_: Any, **__: Any) -> None:
        return None


def lane(channel: FakeChannel) -> UserLane:
    return UserLane(channel)  # type: ignore[arg-type]


def tokens(*token_ids: int, text: str = "", **fields: Any) -> rollout_pb2.RolloutGenerateResponse:
    logprobs = [-0.5] * len(token_ids)
    return rollout_pb2.RolloutGenerateResponse(token_ids=token_ids, logprobs=logprobs, text=text, **fields)


def test_a_plain_spec_asks_for_nothing_more() -> None:
    channel = FakeChannel()
    lane(channel).start((1, 2), SPEC, give_up_seconds=3.0)
    [request] = channel.requests

    assert list(request.prompt_token_ids) == [1, 2]
    assert (request.max_tokens, request.temperature, request.top_p) == (8, 0.5, 1.0)
    assert not request.HasField("seed")
    assert list(request.stop) == []
    assert request.num_top_logprobs == 0
    assert not request.with_prompt_logprobs
    assert channel.options == {"timeout": 3.0, "metadata": None}


def test_all_of_a_spec_is_asked_for() -> None:
    channel = FakeChannel()
    spec = AnswerSpec(
        max_tokens=8,
        temperature=1.0,
        top_p=0.25,
        seed=0,
        stop=("\n", "END"),
        num_top_logprobs=5,
        with_prompt_logprobs=True,
    )
    lane(channel).start((1,), spec, give_up_seconds=1.0)
    [request] = channel.requests

    assert request.top_p == 0.25
    assert request.HasField("seed")
    assert request.seed == 0
    assert list(request.stop) == ["\n", "END"]
    assert request.num_top_logprobs == 5
    assert request.with_prompt_logprobs


def test_the_trace_goes_along() -> None:
    channel = FakeChannel()
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    lane(channel).start((1,), SPEC, give_up_seconds=1.0, traceparent=traceparent)

    assert channel.options["metadata"] == (("traceparent", traceparent),)


async def test_tokens_come_with_their_evidence_and_the_end_says_why() -> None:
    first = tokens(
        72,
        text="H",
        top_logprobs=[rollout_pb2.TopLogprobs(token_ids=[72, 9], logprobs=[-0.5, -1.5])],
        prompt_logprobs=rollout_pb2.PromptLogprobs(
            logprobs=[0.0, -2.0],
            top=[rollout_pb2.TopLogprobs(), rollout_pb2.TopLogprobs(token_ids=[4], logprobs=[-0.25])],
        ),
    )
    call = lane(FakeChannel(first, tokens(73), END)).start((1, 2), SPEC, give_up_seconds=1.0)

    assert [event async for event in call] == [
        AnswerTokens(
            text="H",
            token_ids=(72,),
            logprobs=(-0.5,),
            top_logprobs=(TopLogprobs(token_ids=(72, 9), logprobs=(-0.5, -1.5)),),
            prompt_logprobs=PromptLogprobs(
                logprobs=(0.0, -2.0), top=(TopLogprobs(), TopLogprobs(token_ids=(4,), logprobs=(-0.25,)))
            ),
        ),
        # Its text is held back, and after a stop string never told.
        AnswerTokens(text="", token_ids=(73,), logprobs=(-0.5,)),
        AnswerEnd(finish_reason=FinishReason.STOP, version_spans=(VersionSpan(version=3, num_tokens=2),), num_tokens=2),
    ]


async def test_a_client_gone_at_its_first_token_is_counted_all_that_was_made() -> None:
    channel = FakeChannel(tokens(1, text="a"), tokens(2, 3, text="bc"))
    channel.call.may_end.clear()
    call = lane(channel).start((1,), SPEC, give_up_seconds=1.0)
    events = aiter(call)
    num_before = call.num_tokens
    first = await anext(events)
    call.cancel()

    assert num_before == 0
    assert isinstance(first, AnswerTokens)
    assert first.token_ids == (1,)
    assert call.num_tokens == 3
    assert channel.call.cancelled


async def test_a_reader_of_a_cancelled_call_does_not_wait_for_ever() -> None:
    channel = FakeChannel(tokens(1))
    channel.call.may_end.clear()
    call = lane(channel).start((1,), SPEC, give_up_seconds=1.0)
    events = aiter(call)
    await anext(events)
    asyncio.get_running_loop().call_soon(call.cancel)
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable, match="after 1 tokens"):
            await anext(events)


async def test_nothing_is_left_running_when_the_events_are_no_longer_taken() -> None:
    channel = FakeChannel(tokens(1))
    channel.call.may_end.clear()
    async with aclosing(aiter(lane(channel).start((1,), SPEC, give_up_seconds=1.0))) as events:  # type: ignore[type-var]
        await anext(events)

    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_answer_that_fails_halfway_says_how_many_tokens_were_made() -> None:
    metadata = grpc.aio.Metadata()
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, metadata, metadata, details="gone")
    call = lane(FakeChannel(tokens(1), error=error)).start((1,), SPEC, give_up_seconds=1.0)
    with pytest.raises(Unavailable, match="gone"):
        [event async for event in call]

    assert call.num_tokens == 1


async def test_a_stream_without_an_end_is_an_error() -> None:
    call = lane(FakeChannel(tokens(1))).start((1,), SPEC, give_up_seconds=1.0)
    with pytest.raises(Unavailable, match="after 1 tokens"):
        [event async for event in call]
