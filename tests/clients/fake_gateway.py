"""A scripted gateway on a real socket: what clients must cope with, on demand and in milliseconds."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import grpc

from onlinerlhf.v1 import gateway_pb2, gateway_pb2_grpc, records_pb2

API_KEY = "orl_fake_0123456789abcdef"

# What a call is refused with: code, reason and, where it is to be sent, retry-after.
Refused = tuple[grpc.StatusCode, str, str | None]
AWAY: Refused = (grpc.StatusCode.UNAVAILABLE, "unavailable", None)


def limited(retry_after: str | None) -> Refused:
    return (grpc.StatusCode.RESOURCE_EXHAUSTED, "limit_reached", retry_after)


class FakeGateway(gateway_pb2_grpc.GatewayServiceServicer):
    """Answers "Hi" to everything, after the refusals that `script` holds for the method."""

    def __init__(self) -> None:
        self.target = ""
        self.script: dict[str, list[Refused]] = defaultdict(list)
        """Method to what its next calls, or its next prompts, are refused with."""
        self.requests: dict[str, list[Any]] = defaultdict(list)
        """What came, method by method, refused or not."""
        self.times: dict[str, list[float]] = defaultdict(list)
        self.breaks_after_token = False
        self.hangs = False
        """Answers never come to their first event."""
        self.cancelled = asyncio.Event()
        self._samples: dict[str, str] = {}

    async def SubmitPrompt(
        self, request: gateway_pb2.SubmitPromptRequest, context: Any
    ) -> gateway_pb2.SubmitPromptResponse:
        await self._enter("SubmitPrompt", request, context)
        return gateway_pb2.SubmitPromptResponse(receipt=self._receipt(request.idempotency_key))

    async def SubmitPrompts(
        self, requests: AsyncIterator[gateway_pb2.SubmitPromptRequest], context: Any
    ) -> AsyncIterator[gateway_pb2.SubmitPromptsReply]:
        await self._authenticate(context)
        async for request in requests:
            self._note("SubmitPrompts", request)
            key = request.idempotency_key
            if not self.script["SubmitPrompts"]:
                yield gateway_pb2.SubmitPromptsReply(idempotency_key=key, receipt=self._receipt(key))
                continue
            code, reason, retry_after = self.script["SubmitPrompts"].pop(0)
            refusal = gateway_pb2.Refusal(
                code=code.value[0], reason=reason, message="no", retry_after_seconds=float(retry_after or 0)
            )
            yield gateway_pb2.SubmitPromptsReply(idempotency_key=key, refusal=refusal)

    async def Generate(
        self, request: gateway_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[gateway_pb2.GenerateResponse]:
        await self._enter("Generate", request, context)
        if self.hangs:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        yield gateway_pb2.GenerateResponse(receipt=self._receipt(request.idempotency_key))
        yield gateway_pb2.GenerateResponse(token=gateway_pb2.Token(text="H", token_ids=[72], logprobs=[-0.5]))
        if self.breaks_after_token:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the engine died")
        yield gateway_pb2.GenerateResponse(token=gateway_pb2.Token(text="i", token_ids=[105], logprobs=[-0.25]))
        completion = gateway_pb2.Completion(
            finish_reason=records_pb2.FINISH_REASON_STOP,
            version_spans=[records_pb2.VersionSpan(version=3, num_tokens=2)],
            num_prompt_tokens=5,
            num_response_tokens=2,
        )
        yield gateway_pb2.GenerateResponse(completion=completion)

    async def GetSample(self, request: gateway_pb2.GetSampleRequest, context: Any) -> gateway_pb2.GetSampleResponse:
        await self._enter("GetSample", request, context)
        return gateway_pb2.GetSampleResponse(sample_id=request.sample_id, state="received")

    async def SubmitFeedback(
        self, request: gateway_pb2.SubmitFeedbackRequest, context: Any
    ) -> gateway_pb2.SubmitFeedbackResponse:
        await self._enter("SubmitFeedback", request, context)
        made = self._receipt(request.idempotency_key)
        return gateway_pb2.SubmitFeedbackResponse(feedback_id=made.sample_id, replayed=made.replayed)

    async def WithdrawConsent(
        self, request: gateway_pb2.WithdrawConsentRequest, context: Any
    ) -> gateway_pb2.WithdrawConsentResponse:
        await self._enter("WithdrawConsent", request, context)
        return gateway_pb2.WithdrawConsentResponse(num_dropped=3)

    async def _enter(self, method: str, request: Any, context: Any) -> None:
        await self._authenticate(context)
        self._note(method, request)
        if self.script[method]:
            code, reason, retry_after = self.script[method].pop(0)
            metadata = (("onlinerlhf-reason", reason), *((("retry-after", retry_after),) if retry_after else ()))
            await context.abort(code, "no", metadata)

    def _note(self, method: str, request: Any) -> None:
        self.requests[method].append(request)
        self.times[method].append(asyncio.get_running_loop().time())

    async def _authenticate(self, context: Any) -> None:
        if dict(context.invocation_metadata()).get("authorization") != f"Bearer {API_KEY}":
            reason = (("onlinerlhf-reason", "unauthenticated"),)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "this needs an API key", reason)

    def _receipt(self, key: str) -> gateway_pb2.Receipt:
        replayed = key in self._samples
        sample_id = self._samples.setdefault(key, f"sample-{len(self._samples)}")
        return gateway_pb2.Receipt(sample_id=sample_id, replayed=replayed, num_prompt_tokens=5)
