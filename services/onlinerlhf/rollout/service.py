"""RolloutService: the user lane and the worker's status. Decode, call, encode."""

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

import grpc

from onlinerlhf.core.errors import InvalidInput, LimitReached, Unavailable
from onlinerlhf.core.samples import SamplingSpec
from onlinerlhf.rollout.config import RolloutConfig
from onlinerlhf.rollout.engine import Engine, Wishes
from onlinerlhf.rollout.evidence import Piece, TopLogprobs
from onlinerlhf.rollout.updater import Updater
from onlinerlhf.rollout.usage import Usage
from onlinerlhf.runtime import tracing, wire
from onlinerlhf.v1 import rollout_pb2, rollout_pb2_grpc

if TYPE_CHECKING:
    GenerateContext = grpc.aio.ServicerContext[rollout_pb2.RolloutGenerateRequest, rollout_pb2.RolloutGenerateResponse]
    StatusContext = grpc.aio.ServicerContext[rollout_pb2.GetRolloutStatusRequest, rollout_pb2.GetRolloutStatusResponse]


_MAX_STOP_STRINGS = 4
_MAX_STOP_CHARACTERS = 64
_MAX_TOP_LOGPROBS = 20
# vLLM takes no more.
_MAX_TEMPERATURE = 2


class RolloutServicer(rollout_pb2_grpc.RolloutServiceServicer):
    """Serves users from the engine, beside the training work."""

    def __init__(
        self, engine: Engine, updater: Updater, usage: Usage, config: RolloutConfig, *, refusal: Callable[[int], str]
    ) -> None:
        self._engine = engine
        self._updater = updater
        self._usage = usage
        self._config = config
        self._refusal = refusal
        self._num_users = 0
        self._numbers = itertools.count()

    async def Generate(
        self, request: rollout_pb2.RolloutGenerateRequest, context: "GenerateContext"
    ) -> AsyncIterator[rollout_pb2.RolloutGenerateResponse]:
        """Stream one response. A client that goes away cancels this, which aborts the request in the engine."""
        if self._engine.version == 0:
            raise Unavailable("no policy version applied yet")
        spec, wishes = self._spec(request), _wishes(request)
        if self._num_users >= self._config.max_user_requests:
            raise LimitReached(f"{self._num_users} user requests are in the engine, which is the most it takes")
        self._num_users += 1
        current = tracing.begin("rollout.generate", parent=_traceparent(context))
        try:
            request_id = f"user-{next(self._numbers)}"
            pieces = self._engine.stream(request.prompt_token_ids, spec, request_id=request_id, wishes=wishes)
            async with aclosing(pieces):
                async for piece in pieces:
                    yield _encode(piece)
        finally:
            self._num_users -= 1
            current.end(attributes={"version": self._engine.version})

    async def GetStatus(
        self, request: rollout_pb2.GetRolloutStatusRequest, context: "StatusContext"
    ) -> rollout_pb2.GetRolloutStatusResponse:
        """What an operator or a scaler wants to know."""
        del request, context
        reason = self._engine.trouble() or self._refusal(self._engine.version)
        return rollout_pb2.GetRolloutStatusResponse(
            worker_id=self._config.worker_id,
            version=self._engine.version,
            ready=not reason,
            reason=reason,
            num_in_flight=self._usage.num_in_flight,
            num_tokens_generated=self._usage.num_tokens,
            tokens_per_second=self._usage.tokens_per_second,
            num_updates_applied=self._updater.num_applied,
            num_updates_refused=self._updater.num_refused,
            pause_seconds=self._updater.pause_seconds,
            last_refusal=self._updater.last_refusal,
            idle_share=self._usage.idle_share,
            observed_seconds=self._usage.observed_seconds,
            num_user_requests=self._num_users,
        )

    def _spec(self, request: rollout_pb2.RolloutGenerateRequest) -> SamplingSpec:
        """Raises InvalidInput. An unset top_p (0) means 1: nothing is cut off."""
        num_prompt_tokens = len(request.prompt_token_ids)
        room = self._engine.max_model_len - num_prompt_tokens
        if num_prompt_tokens == 0 or room < 1:
            raise InvalidInput(
                f"{num_prompt_tokens} prompt tokens; expected 1 to {self._engine.max_model_len - 1}", reason="length"
            )
        if request.max_tokens < 1:
            raise InvalidInput("max_tokens is 0; expected at least 1", reason="max_tokens")
        if not 0 <= request.temperature <= _MAX_TEMPERATURE:
            message = f"temperature is {request.temperature:g}; expected 0 to {_MAX_TEMPERATURE}"
            raise InvalidInput(message, reason="temperature")
        if not 0 <= request.top_p <= 1:
            raise InvalidInput(f"top_p is {request.top_p:g}; expected above 0 and up to 1", reason="top_p")
        return SamplingSpec(
            num_responses=1,
            max_tokens=min(request.max_tokens, room),
            temperature=request.temperature,
            top_p=request.top_p or 1.0,
        )


def _wishes(request: rollout_pb2.RolloutGenerateRequest) -> Wishes:
    """Raises InvalidInput. Messages do not repeat a stop string: it may be from a user's text."""
    if len(request.stop) > _MAX_STOP_STRINGS:
        raise InvalidInput(f"{len(request.stop)} stop strings; at most {_MAX_STOP_STRINGS} can be given", reason="stop")
    for stop in request.stop:
        if not 1 <= len(stop) <= _MAX_STOP_CHARACTERS:
            message = f"a stop string of {len(stop)} characters; expected 1 to {_MAX_STOP_CHARACTERS}"
            raise InvalidInput(message, reason="stop")
    if request.num_top_logprobs > _MAX_TOP_LOGPROBS:
        message = f"num_top_logprobs is {request.num_top_logprobs}; expected 0 to {_MAX_TOP_LOGPROBS}"
        raise InvalidInput(message, reason="num_top_logprobs")
    return Wishes(
        seed=request.seed if request.HasField("seed") else None,
        stop=tuple(request.stop),
        num_top_logprobs=request.num_top_logprobs,
        with_prompt_logprobs=request.with_prompt_logprobs,
    )


def _traceparent(context: "GenerateContext") -> str:
    values = (value for key, value in context.invocation_metadata() or () if key == "traceparent")
    value = next(values, "")
    return value if isinstance(value, str) else ""


def _encode(piece: Piece) -> rollout_pb2.RolloutGenerateResponse:
    response = rollout_pb2.RolloutGenerateResponse(
        token_ids=piece.token_ids,
        logprobs=piece.logprobs,
        text=piece.text,
        version_spans=[wire.span_to_proto(span) for span in piece.version_spans],
        top_logprobs=[_encode_top(top) for top in piece.top_logprobs],
    )
    if piece.prompt_logprobs is not None:
        response.prompt_logprobs.logprobs.extend(piece.prompt_logprobs.logprobs)
        response.prompt_logprobs.top.extend(_encode_top(top) for top in piece.prompt_logprobs.top)
    if piece.finish_reason is not None:
        response.finish_reason = wire.finish_to_proto(piece.finish_reason)
    return response


def _encode_top(top: TopLogprobs) -> rollout_pb2.TopLogprobs:
    return rollout_pb2.TopLogprobs(token_ids=top.token_ids, logprobs=top.logprobs)
