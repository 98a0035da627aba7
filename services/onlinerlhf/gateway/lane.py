"""The user lane: one answer, streamed from a rollout worker. Nothing here waits for Redis or the learner."""

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from onlinerlhf.core.errors import Unavailable
from onlinerlhf.core.samples import FinishReason, VersionSpan
from onlinerlhf.gateway import metrics
from onlinerlhf.runtime import wire
from onlinerlhf.runtime.channels import map_error
from onlinerlhf.v1 import records_pb2, rollout_pb2, rollout_pb2_grpc

if TYPE_CHECKING:
    from onlinerlhf.v1.rollout_pb2_grpc import RolloutServiceAsyncStub


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSpec:
    """How an answer is to be sampled."""

    max_tokens: int
    temperature: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerTokens:
    """The next tokens."""

    text: str
    token_ids: tuple[int, ...]


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

    def start(self, prompt_token_ids: Sequence[int], spec: AnswerSpec, *, give_up_seconds: float) -> "AnswerCall":
        """Sampling begins at once, before the first token is asked for."""
        request = rollout_pb2.RolloutGenerateRequest(
            prompt_token_ids=prompt_token_ids, max_tokens=spec.max_tokens, temperature=spec.temperature, top_p=1.0
        )
        return AnswerCall(self._stub.Generate(request, timeout=give_up_seconds))


class AnswerCall:
    """An answer on its way. Cancel it when nobody listens any more."""

    def __init__(
        self, call: grpc.aio.UnaryStreamCall[rollout_pb2.RolloutGenerateRequest, rollout_pb2.RolloutGenerateResponse]
    ) -> None:
        self._call = call
        self._started_at = time.monotonic()
        self._num_tokens = 0

    def cancel(self) -> None:
        """The worker stops sampling; harmless after the end."""
        self._call.cancel()

    async def __aiter__(self) -> AsyncIterator[AnswerTokens | AnswerEnd]:
        try:
            async for response in self._call:
                if response.token_ids or response.text:
                    yield self._tokens(response)
                if response.finish_reason != records_pb2.FINISH_REASON_UNSPECIFIED:
                    yield self._end(response)
                    return
        except grpc.aio.AioRpcError as error:
            raise map_error(error, "an answer from the rollout workers") from error
        raise Unavailable(f"the rollout worker ended the answer early, after {self._num_tokens} tokens")

    def _tokens(self, response: rollout_pb2.RolloutGenerateResponse) -> AnswerTokens:
        if self._num_tokens == 0:
            metrics.FIRST_TOKEN_SECONDS.observe(time.monotonic() - self._started_at)
        self._num_tokens += len(response.token_ids)
        metrics.ANSWER_TOKENS.inc(len(response.token_ids))
        return AnswerTokens(text=response.text, token_ids=tuple(response.token_ids))

    def _end(self, response: rollout_pb2.RolloutGenerateResponse) -> AnswerEnd:
        return AnswerEnd(
            finish_reason=wire.finish_from_proto(response.finish_reason),
            version_spans=tuple(
                VersionSpan(version=span.version, num_tokens=span.num_tokens) for span in response.version_spans
            ),
            num_tokens=self._num_tokens,
        )
