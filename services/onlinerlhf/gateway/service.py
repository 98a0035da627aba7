"""GatewayService: decode, call, encode."""

import math
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from onlinerlhf.core.errors import InvalidInput, NotFound, OnlineRLHFError
from onlinerlhf.gateway import metrics
from onlinerlhf.gateway.admission import Admissions, NotAdmitted
from onlinerlhf.gateway.config import GatewayConfig
from onlinerlhf.gateway.lane import AnswerEnd, AnswerSpec, AnswerTokens, UserLane
from onlinerlhf.gateway.ordered import in_order
from onlinerlhf.gateway.pool import Receipt
from onlinerlhf.gateway.samples import SampleReader
from onlinerlhf.gateway.screens import Candidate
from onlinerlhf.runtime import wire
from onlinerlhf.runtime.statuses import status_of
from onlinerlhf.v1 import gateway_pb2, gateway_pb2_grpc


class GatewayServicer(gateway_pb2_grpc.GatewayServiceServicer):
    """What API clients call."""

    def __init__(self, admissions: Admissions, lane: UserLane, samples: SampleReader, limits: GatewayConfig) -> None:
        self._admissions = admissions
        self._lane = lane
        self._samples = samples
        self._limits = limits

    async def SubmitPrompt(
        self,
        request: gateway_pb2.SubmitPromptRequest,
        context: grpc.aio.ServicerContext[gateway_pb2.SubmitPromptRequest, gateway_pb2.SubmitPromptResponse],
    ) -> gateway_pb2.SubmitPromptResponse:
        """Admit one prompt, or say why not."""
        wait_seconds = _within_deadline(context, self._limits.admit_wait_seconds)
        receipt = await self._admissions.submit(_candidate(request), give_up_seconds=wait_seconds)
        return gateway_pb2.SubmitPromptResponse(receipt=_receipt(receipt))

    async def SubmitPrompts(
        self,
        request_iterator: AsyncIterator[gateway_pb2.SubmitPromptRequest],
        context: grpc.aio.ServicerContext[gateway_pb2.SubmitPromptRequest, gateway_pb2.SubmitPromptsReply],
    ) -> AsyncIterator[gateway_pb2.SubmitPromptsReply]:
        """A reply a request, in order."""

        async def reply(request: gateway_pb2.SubmitPromptRequest) -> gateway_pb2.SubmitPromptsReply:
            wait_seconds = _within_deadline(context, self._limits.admit_wait_seconds)
            key = request.idempotency_key
            try:
                receipt = await self._admissions.submit(_candidate(request), give_up_seconds=wait_seconds)
            except OnlineRLHFError as error:
                return gateway_pb2.SubmitPromptsReply(idempotency_key=key, refusal=_refusal(error))
            return gateway_pb2.SubmitPromptsReply(idempotency_key=key, receipt=_receipt(receipt))

        num_at_once = self._limits.max_concurrent_per_stream
        async with aclosing(in_order(request_iterator, reply, num_at_once=num_at_once)) as replies:
            async for each in replies:
                yield each

    async def Generate(
        self,
        request: gateway_pb2.GenerateRequest,
        context: grpc.aio.ServicerContext[gateway_pb2.GenerateRequest, gateway_pb2.GenerateResponse],
    ) -> AsyncIterator[gateway_pb2.GenerateResponse]:
        """Answer; sampling does not wait for the admission."""
        try:
            spec = self._answer_spec(request)
            candidate = await self._admissions.screen(_candidate(request))
        except OnlineRLHFError:
            metrics.ANSWERS.labels(outcome="refused").inc()
            raise
        answer_seconds = _within_deadline(context, self._limits.answer_seconds)
        call = self._lane.start(candidate.token_ids, spec, give_up_seconds=answer_seconds)
        outcome = "failed"
        try:
            wait_seconds = self._limits.admit_wait_when_answering_seconds
            yield _admission(await self._admissions.offer(candidate, give_up_seconds=wait_seconds))
            async for event in call:
                yield _event(event, num_prompt_tokens=len(candidate.token_ids))
            outcome = "completed"
        finally:
            call.cancel()
            metrics.ANSWERS.labels(outcome=outcome).inc()

    async def GetSample(
        self,
        request: gateway_pb2.GetSampleRequest,
        context: grpc.aio.ServicerContext[gateway_pb2.GetSampleRequest, gateway_pb2.GetSampleResponse],
    ) -> gateway_pb2.GetSampleResponse:
        """The ledger's word on a sample."""
        wait_seconds = _within_deadline(context, self._limits.admit_wait_seconds)
        sample = await self._samples.get(request.sample_id, give_up_seconds=wait_seconds)
        if sample is None:
            raise NotFound("no sample has this id")
        return gateway_pb2.GetSampleResponse(
            sample_id=request.sample_id,
            state=sample.state,
            drop_reason=sample.drop_reason,
            trained_version=sample.trained_version,
        )

    def _answer_spec(self, request: gateway_pb2.GenerateRequest) -> AnswerSpec:
        max_tokens = request.max_tokens or self._limits.default_max_tokens
        if max_tokens > self._limits.max_response_tokens:
            message = f"max_tokens is {max_tokens}; at most {self._limits.max_response_tokens} can be asked for"
            raise InvalidInput(message, reason="bad_max_tokens")
        temperature = request.temperature if request.HasField("temperature") else 1.0
        if not (math.isfinite(temperature) and 0.0 <= temperature <= 2.0):
            raise InvalidInput(f"temperature is {temperature}; it must be from 0 to 2", reason="bad_temperature")
        return AnswerSpec(max_tokens=max_tokens, temperature=temperature)


def _within_deadline(context: grpc.aio.ServicerContext[Any, Any], seconds: float) -> float:
    """A little less than the caller waits, so that the caller hears the reason and not just its own timeout."""
    remaining = context.time_remaining()
    return seconds if remaining is None else min(seconds, 0.9 * remaining)


def _candidate(request: gateway_pb2.SubmitPromptRequest | gateway_pb2.GenerateRequest) -> Candidate:
    return Candidate(
        user_id=request.user_id,
        idempotency_key=request.idempotency_key,
        training_consent=request.training_consent,
        raw=request.text,
    )


def _receipt(receipt: Receipt) -> gateway_pb2.Receipt:
    return gateway_pb2.Receipt(
        sample_id=receipt.sample_id, replayed=receipt.replayed, num_prompt_tokens=receipt.num_prompt_tokens
    )


def _refusal(error: OnlineRLHFError) -> gateway_pb2.Refusal:
    code, reason = status_of(error)
    return gateway_pb2.Refusal(code=code.value[0], reason=reason, message=str(error))


def _admission(outcome: Receipt | NotAdmitted) -> gateway_pb2.GenerateResponse:
    if isinstance(outcome, Receipt):
        return gateway_pb2.GenerateResponse(admission=gateway_pb2.Admission(receipt=_receipt(outcome)))
    return gateway_pb2.GenerateResponse(admission=gateway_pb2.Admission(not_admitted=_refusal(outcome.error)))


def _event(event: AnswerTokens | AnswerEnd, *, num_prompt_tokens: int) -> gateway_pb2.GenerateResponse:
    if isinstance(event, AnswerTokens):
        return gateway_pb2.GenerateResponse(token=gateway_pb2.Token(text=event.text, token_ids=event.token_ids))
    completion = gateway_pb2.Completion(
        finish_reason=wire.finish_to_proto(event.finish_reason),
        version_spans=[wire.span_to_proto(span) for span in event.version_spans],
        num_prompt_tokens=num_prompt_tokens,
        num_response_tokens=event.num_tokens,
    )
    return gateway_pb2.GenerateResponse(completion=completion)
