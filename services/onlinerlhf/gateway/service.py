"""GatewayService: decode, call, encode."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Final

import grpc

from onlinerlhf.core.errors import InvalidInput, OnlineRLHFError
from onlinerlhf.gateway.admission.consent import ConsentClaim
from onlinerlhf.gateway.config import GatewayConfig
from onlinerlhf.gateway.kept import judgements
from onlinerlhf.gateway.requests.desk import Desk
from onlinerlhf.gateway.requests.lane import AnswerEnd, AnswerSpec, AnswerTokens
from onlinerlhf.gateway.requests.ordered import at_hand, in_order
from onlinerlhf.gateway.requests.questions import Given, Question
from onlinerlhf.runtime import tracing, wire
from onlinerlhf.runtime.statuses import status_of
from onlinerlhf.v1 import gateway_pb2, gateway_pb2_grpc

BATCHES_AT_ONCE: Final = 2
"""Of one stream: while one waits for Redis, another is screened."""

_ROLES = {
    gateway_pb2.ROLE_SYSTEM: "system",
    gateway_pb2.ROLE_USER: "user",
    gateway_pb2.ROLE_ASSISTANT: "assistant",
}


class GatewayServicer(gateway_pb2_grpc.GatewayServiceServicer):
    """What API clients call."""

    def __init__(self, desk: Desk, limits: GatewayConfig) -> None:
        self._desk = desk
        self._limits = limits

    async def SubmitPrompt(
        self,
        request: gateway_pb2.SubmitPromptRequest,
        context: grpc.aio.ServicerContext[gateway_pb2.SubmitPromptRequest, gateway_pb2.SubmitPromptResponse],
    ) -> gateway_pb2.SubmitPromptResponse:
        """Take one prompt in, or say why not."""
        wait_seconds = _within_deadline(context, self._limits.admit_wait_seconds)
        question = _submission(request, _traceparent(context))
        given = await self._desk.submit(credential_of(context), question, give_up_seconds=wait_seconds)
        return gateway_pb2.SubmitPromptResponse(receipt=_receipt(given))

    async def SubmitPrompts(
        self,
        request_iterator: AsyncIterator[gateway_pb2.SubmitPromptRequest],
        context: grpc.aio.ServicerContext[gateway_pb2.SubmitPromptRequest, gateway_pb2.SubmitPromptsReply],
    ) -> AsyncIterator[gateway_pb2.SubmitPromptsReply]:
        """A reply a request, in order."""
        credential, traceparent = credential_of(context), _traceparent(context)

        async def reply(requests: list[gateway_pb2.SubmitPromptRequest]) -> list[gateway_pb2.SubmitPromptsReply]:
            wait_seconds = _within_deadline(context, self._limits.admit_wait_seconds)
            outcomes = [_decoded(request, traceparent) for request in requests]
            questions = [each for each in outcomes if isinstance(each, Question)]
            given = iter(await self._desk.submit_all(credential, questions, give_up_seconds=wait_seconds))
            return [
                _reply(request, next(given) if isinstance(each, Question) else each)
                for request, each in zip(requests, outcomes, strict=True)
            ]

        source = at_hand(request_iterator, max_count=self._limits.max_concurrent_per_stream)
        async with aclosing(source), aclosing(in_order(source, reply, num_at_once=BATCHES_AT_ONCE)) as batches:
            async for batch in batches:
                for each in batch:
                    yield each

    async def Generate(
        self,
        request: gateway_pb2.GenerateRequest,
        context: grpc.aio.ServicerContext[gateway_pb2.GenerateRequest, gateway_pb2.GenerateResponse],
    ) -> AsyncIterator[gateway_pb2.GenerateResponse]:
        """Answer: the receipt at once, then tokens as they come."""
        wait_seconds = _within_deadline(context, self._limits.answer_seconds)
        question = self._question(request, _traceparent(context))
        async with await self._desk.ask(credential_of(context), question, give_up_seconds=wait_seconds) as answering:
            yield gateway_pb2.GenerateResponse(receipt=_receipt(answering.given))
            async for _, event in answering:
                yield _event(event, num_prompt_tokens=answering.given.num_prompt_tokens)

    async def GetSample(
        self,
        request: gateway_pb2.GetSampleRequest,
        context: grpc.aio.ServicerContext[gateway_pb2.GetSampleRequest, gateway_pb2.GetSampleResponse],
    ) -> gateway_pb2.GetSampleResponse:
        """As much as this key may know."""
        wait_seconds = _within_deadline(context, self._limits.admit_wait_seconds)
        sample = await self._desk.sample(credential_of(context), request.sample_id, give_up_seconds=wait_seconds)
        return gateway_pb2.GetSampleResponse(
            sample_id=request.sample_id,
            state=sample.state,
            drop_reason=sample.drop_reason,
            trained_version=sample.trained_version,
        )

    async def SubmitFeedback(
        self,
        request: gateway_pb2.SubmitFeedbackRequest,
        context: grpc.aio.ServicerContext[gateway_pb2.SubmitFeedbackRequest, gateway_pb2.SubmitFeedbackResponse],
    ) -> gateway_pb2.SubmitFeedbackResponse:
        """Store a judgement."""
        receipt = await self._desk.give_feedback(
            credential_of(context),
            _judgement(request),
            idempotency_key=request.idempotency_key,
            give_up_seconds=_within_deadline(context, self._limits.admit_wait_seconds),
        )
        return gateway_pb2.SubmitFeedbackResponse(feedback_id=receipt.feedback_id, replayed=receipt.replayed)

    async def WithdrawConsent(
        self,
        request: gateway_pb2.WithdrawConsentRequest,
        context: grpc.aio.ServicerContext[gateway_pb2.WithdrawConsentRequest, gateway_pb2.WithdrawConsentResponse],
    ) -> gateway_pb2.WithdrawConsentResponse:
        """From now on nothing sent so far is learned from."""
        wait_seconds = _within_deadline(context, self._limits.admit_wait_seconds)
        num_dropped = await self._desk.withdraw(credential_of(context), request.user_id, give_up_seconds=wait_seconds)
        return gateway_pb2.WithdrawConsentResponse(num_dropped=num_dropped)

    def _question(self, request: gateway_pb2.GenerateRequest, traceparent: str) -> Question:
        return Question(
            user_id=request.user_id,
            turns=_turns(request.text, request.messages),
            spec=AnswerSpec(
                max_tokens=request.max_tokens or self._limits.default_max_tokens,
                temperature=request.temperature if request.HasField("temperature") else 1.0,
                top_p=request.top_p if request.HasField("top_p") else 1.0,
                seed=request.seed if request.HasField("seed") else None,
                stop=tuple(request.stop),
            ),
            idempotency_key=request.idempotency_key,
            consent=_consent(request),
            use_case=request.use_case,
            traceparent=traceparent,
        )


def credential_of(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    """What follows `Bearer` in the call's metadata; None where nothing does."""
    scheme, _, credential = (_metadata(context, "authorization") or "").partition(" ")
    return credential.strip() if scheme.lower() == "bearer" and credential else None


def _metadata(context: grpc.aio.ServicerContext[Any, Any], name: str) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == name:
            return value if isinstance(value, str) else None
    return None


def _traceparent(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    return tracing.checked(_metadata(context, "traceparent") or "")


def _within_deadline(context: grpc.aio.ServicerContext[Any, Any], seconds: float) -> float:
    """A little less than the caller waits, so that the caller hears the reason and not just its own timeout."""
    remaining = context.time_remaining()
    return seconds if remaining is None else min(seconds, 0.9 * remaining)


def _submission(request: gateway_pb2.SubmitPromptRequest, traceparent: str) -> Question:
    if not request.idempotency_key:
        raise InvalidInput("a submission needs an idempotency_key", reason="bad_idempotency_key")
    return Question(
        user_id=request.user_id,
        turns=_turns(request.text, request.messages),
        spec=AnswerSpec(max_tokens=1, temperature=1.0),
        idempotency_key=request.idempotency_key,
        consent=_consent(request),
        use_case=request.use_case,
        traceparent=traceparent,
    )


def _decoded(request: gateway_pb2.SubmitPromptRequest, traceparent: str) -> Question | OnlineRLHFError:
    try:
        return _submission(request, traceparent)
    except InvalidInput as error:
        return error


def _reply(
    request: gateway_pb2.SubmitPromptRequest, outcome: Given | OnlineRLHFError
) -> gateway_pb2.SubmitPromptsReply:
    key = request.idempotency_key
    if isinstance(outcome, OnlineRLHFError):
        return gateway_pb2.SubmitPromptsReply(idempotency_key=key, refusal=_refusal(outcome))
    return gateway_pb2.SubmitPromptsReply(idempotency_key=key, receipt=_receipt(outcome))


def _turns(text: bytes, messages: Sequence[gateway_pb2.Message]) -> tuple[tuple[str, bytes], ...]:
    if messages:
        if text:
            raise InvalidInput("text and messages are both set; a prompt is one of them", reason="bad_messages")
        return tuple((_ROLES.get(message.role, ""), message.text) for message in messages)
    return (("user", text),)


def _consent(request: gateway_pb2.SubmitPromptRequest | gateway_pb2.GenerateRequest) -> ConsentClaim | None:
    if not request.HasField("consent"):
        return None
    return ConsentClaim(
        notice_version=request.consent.notice_version, shown_at_seconds=request.consent.shown_at_seconds
    )


def _judgement(request: gateway_pb2.SubmitFeedbackRequest) -> judgements.Judgement:
    match request.WhichOneof("judgement"):
        case "thumb":
            return judgements.Thumb(sample_id=request.thumb.sample_id, up=request.thumb.up)
        case "score":
            return judgements.Score(sample_id=request.score.sample_id, value=request.score.value)
        case "correction":
            return judgements.Correction(sample_id=request.correction.sample_id, text=request.correction.text)
        case "ranking":
            return judgements.Ranking(sample_ids=tuple(request.ranking.sample_ids))
        case _:
            raise InvalidInput("no judgement: thumb, score, correction or ranking", reason="bad_feedback")


def _receipt(given: Given) -> gateway_pb2.Receipt:
    return gateway_pb2.Receipt(
        sample_id=given.sample_id, replayed=given.replayed, num_prompt_tokens=given.num_prompt_tokens
    )


def _refusal(error: OnlineRLHFError) -> gateway_pb2.Refusal:
    code, reason = status_of(error)
    retry_after_seconds = getattr(error, "retry_after_seconds", None) or 0.0
    return gateway_pb2.Refusal(
        code=code.value[0], reason=reason, message=str(error), retry_after_seconds=retry_after_seconds
    )


def _event(event: AnswerTokens | AnswerEnd, *, num_prompt_tokens: int) -> gateway_pb2.GenerateResponse:
    if isinstance(event, AnswerTokens):
        token = gateway_pb2.Token(text=event.text, token_ids=event.token_ids, logprobs=event.logprobs)
        return gateway_pb2.GenerateResponse(token=token)
    completion = gateway_pb2.Completion(
        finish_reason=wire.finish_to_proto(event.finish_reason),
        version_spans=[wire.span_to_proto(span) for span in event.version_spans],
        num_prompt_tokens=num_prompt_tokens,
        num_response_tokens=event.num_tokens,
    )
    return gateway_pb2.GenerateResponse(completion=completion)
