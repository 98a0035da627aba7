"""The user lane: one answer, streamed from a rollout worker. Nothing here waits for Redis or the learner."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from onlinerlhf.core.errors import OnlineRLHFError, Unavailable
from onlinerlhf.core.samples import FinishReason, VersionSpan
from onlinerlhf.gateway import metrics
from onlinerlhf.runtime import wire
from onlinerlhf.runtime.channels import map_error
from onlinerlhf.runtime.tasks import end
from onlinerlhf.v1 import records_pb2, rollout_pb2, rollout_pb2_grpc

if TYPE_CHECKING:
    from onlinerlhf.v1.rollout_pb2_grpc import RolloutServiceAsyncStub


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSpec:
    """How an answer is to be sampled, and what is to be told of it."""

    max_tokens: int
    temperature: float
    top_p: float = 1.0
    seed: int | None = None
    """The same tokens again, from the same policy version."""
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these."""
    num_top_logprobs: int = 0
    with_prompt_logprobs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TopLogprobs:
    """The likeliest tokens at one position, most likely first. Fewer than asked for where top-p left fewer."""

    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    """Nats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLogprobs:
    """The prompt's tokens given those before them. The first has none: its logprob is 0 and its top list empty."""

    logprobs: tuple[float, ...]
    """Nats, one a prompt token."""
    top: tuple[TopLogprobs, ...] = ()
    """One a prompt token; empty where none were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerTokens:
    """The next tokens. Their text may come later, or never: it is held back while it may begin a stop string."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    """Nats, one a token: of the distribution it was drawn from; the model's own at temperature 0 and 1."""
    top_logprobs: tuple[TopLogprobs, ...] = ()
    """One a token; empty where none were asked for."""
    prompt_logprobs: PromptLogprobs | None = None
    """With the first tokens, where asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerEnd:
    """The end of an answer."""

    finish_reason: FinishReason
    version_spans: tuple[VersionSpan, ...]
    num_tokens: int


class UserLane:
    """Asks the rollout workers behind a channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: RolloutServiceAsyncStub = rollout_pb2_grpc.RolloutServiceStub(channel)

    def start(
        self, prompt_token_ids: Sequence[int], spec: AnswerSpec, *, give_up_seconds: float, traceparent: str = ""
    ) -> "AnswerCall":
        """Sampling begins at once, before the first token is asked for. `traceparent`: W3C trace context."""
        request = rollout_pb2.RolloutGenerateRequest(
            prompt_token_ids=prompt_token_ids,
            max_tokens=spec.max_tokens,
            temperature=spec.temperature,
            top_p=spec.top_p,
            seed=spec.seed,
            stop=spec.stop,
            num_top_logprobs=spec.num_top_logprobs,
            with_prompt_logprobs=spec.with_prompt_logprobs,
        )
        metadata = (("traceparent", traceparent),) if traceparent else None
        return AnswerCall(self._stub.Generate(request, timeout=give_up_seconds, metadata=metadata))


class AnswerCall:
    """An answer on its way. Cancel it when nobody listens any more.

    Iterate once. What comes from the worker is read and counted at once, however slowly the events are taken: the
    engine does not wait for its readers, so tokens that a client never came to see were made all the same. At most
    max_tokens of them are held.
    """

    def __init__(
        self, call: grpc.aio.UnaryStreamCall[rollout_pb2.RolloutGenerateRequest, rollout_pb2.RolloutGenerateResponse]
    ) -> None:
        self._call = call
        self._started_at = time.monotonic()
        self._num_tokens = 0

    @property
    def num_tokens(self) -> int:
        """Tokens that have come so far, taken or not, whether the answer was finished or not."""
        return self._num_tokens

    def cancel(self) -> None:
        """The worker stops sampling; harmless after the end."""
        self._call.cancel()

    async def __aiter__(self) -> AsyncIterator[AnswerTokens | AnswerEnd]:
        arrived: asyncio.Queue[rollout_pb2.RolloutGenerateResponse | OnlineRLHFError] = asyncio.Queue()
        reader = asyncio.create_task(self._read(arrived), name="read an answer")
        try:
            while True:
                response = await arrived.get()
                if isinstance(response, OnlineRLHFError):
                    raise response
                if response.token_ids or response.text:
                    yield _tokens(response)
                if response.finish_reason != records_pb2.FINISH_REASON_UNSPECIFIED:
                    yield self._end(response)
                    return
        finally:
            await end([reader])

    async def _read(self, arrived: "asyncio.Queue[rollout_pb2.RolloutGenerateResponse | OnlineRLHFError]") -> None:
        """Ends with the call, which has a deadline. An error comes last, always: nobody waits for more in vain."""
        failure: OnlineRLHFError | None = None
        try:
            async for response in self._call:
                self._count(len(response.token_ids))
                arrived.put_nowait(response)
        except grpc.aio.AioRpcError as error:
            failure = map_error(error, "an answer from the rollout workers")
            failure.__cause__ = error
        finally:
            early = f"the rollout worker ended the answer early, after {self._num_tokens} tokens"
            arrived.put_nowait(failure or Unavailable(early))

    def _count(self, num_tokens: int) -> None:
        if self._num_tokens == 0 and num_tokens:
            metrics.FIRST_TOKEN_SECONDS.observe(time.monotonic() - self._started_at)
        self._num_tokens += num_tokens
        metrics.ANSWER_TOKENS.inc(num_tokens)

    def _end(self, response: rollout_pb2.RolloutGenerateResponse) -> AnswerEnd:
        return AnswerEnd(
            finish_reason=wire.finish_from_proto(response.finish_reason),
            version_spans=tuple(
                VersionSpan(version=span.version, num_tokens=span.num_tokens) for span in response.version_spans
            ),
            num_tokens=self._num_tokens,
        )


def _tokens(response: rollout_pb2.RolloutGenerateResponse) -> AnswerTokens:
    return AnswerTokens(
        text=response.text,
        token_ids=tuple(response.token_ids),
        logprobs=tuple(response.logprobs),
        top_logprobs=_tops(response.top_logprobs),
        prompt_logprobs=_prompt_logprobs(response) if response.HasField("prompt_logprobs") else None,
    )


def _prompt_logprobs(response: rollout_pb2.RolloutGenerateResponse) -> PromptLogprobs:
    prompt = response.prompt_logprobs
    return PromptLogprobs(logprobs=tuple(prompt.logprobs), top=_tops(prompt.top))


def _tops(messages: Sequence[rollout_pb2.TopLogprobs]) -> tuple[TopLogprobs, ...]:
    return tuple(TopLogprobs(token_ids=tuple(each.token_ids), logprobs=tuple(each.logprobs)) for each in messages)
