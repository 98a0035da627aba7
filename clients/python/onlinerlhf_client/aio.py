"""The asynchronous client: method for method the synchronous one."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeVar, Unpack

import grpc

from onlinerlhf.v1 import gateway_pb2, gateway_pb2_grpc
from onlinerlhf_client import codec
from onlinerlhf_client.aio_streams import AsyncSubmitStream, AsyncTokenStream
from onlinerlhf_client.channels import Tls, security
from onlinerlhf_client.credentials import Credentials, Metadata
from onlinerlhf_client.exceptions import OnlineRLHFError, from_rpc
from onlinerlhf_client.feedback import AsyncFeedback
from onlinerlhf_client.options import AnswerOptions
from onlinerlhf_client.retries import Budget, Timeouts
from onlinerlhf_client.types import (
    Answer,
    Consent,
    FeedbackReceipt,
    Message,
    Receipt,
    Sample,
    Submission,
    SubmitResult,
    new_idempotency_key,
)
from onlinerlhf_client.window import Window

if TYPE_CHECKING:
    from onlinerlhf.v1.gateway_pb2_grpc import GatewayServiceAsyncStub

RequestT = TypeVar("RequestT", contravariant=True)
ResponseT = TypeVar("ResponseT", covariant=True)


class _Unary(Protocol[RequestT, ResponseT]):
    def __call__(self, request: RequestT, /, *, timeout: float, metadata: Metadata) -> Awaitable[ResponseT]: ...


class AsyncClient:
    """Talks to a gateway from one event loop; close it, or use it as an async context manager."""

    def __init__(
        self, target: str, *, api_key: str | None = None, tls: bool | Tls = False, timeouts: Timeouts | None = None
    ) -> None:
        """`api_key=None`: the environment's ONLINERLHF_API_KEY. Without `tls` the key travels readable.

        `tls=True` trusts the authorities that gRPC brings; `Tls(ca=...)` a private one.
        """
        self._timeouts = timeouts or Timeouts()
        self._credentials = Credentials(api_key)
        credentials, options = security(tls)
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options=options)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options=options)
        self._stub: GatewayServiceAsyncStub = gateway_pb2_grpc.GatewayServiceStub(self._channel)
        self.feedback = AsyncFeedback(self._give)
        """Judgements of answers."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all calls and the connection."""
        await self._channel.close()

    async def submit(
        self,
        text: str | bytes | None = None,
        *,
        user_id: str,
        consent: Consent | None,
        messages: Sequence[Message] = (),
        use_case: str = "",
        idempotency_key: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the deadline travels with the call
    ) -> Receipt:
        """Offer a prompt as training data. Retried until `timeout`, always with the same idempotency key."""
        submission = Submission(
            text=text,
            messages=tuple(messages),
            user_id=user_id,
            consent=consent,
            use_case=use_case,
            idempotency_key=new_idempotency_key() if idempotency_key is None else idempotency_key,
        )
        response = await self._call(self._stub.SubmitPrompt, codec.submission_to_proto(submission), timeout)
        return codec.receipt_from_proto(response.receipt)

    async def submit_many(
        self, submissions: Iterable[Submission] | AsyncIterable[Submission], *, window: int = 64
    ) -> AsyncGenerator[SubmitResult, None]:
        """Offer many prompts over one stream: a result each, in order; a refused one does not end it.

        Up to `window` are on their way at a time. After a broken stream those without a reply are sent again.
        """
        budget = Budget(self._timeouts)
        waiting = Window(window)
        source = aiter(submissions) if isinstance(submissions, AsyncIterable) else _as_async(iter(submissions))
        while True:
            stream = AsyncSubmitStream(self._stub, self._credentials, waiting, budget)
            try:
                while await stream.fill(source):
                    yield await stream.next_result()
                return
            except OnlineRLHFError as error:
                delay = budget.delay_after(error)
                if delay is None:
                    raise
            finally:
                stream.close()
            await asyncio.sleep(delay)

    def generate(
        self, text: str | bytes | None = None, *, timeout: float | None = None, **options: Unpack[AnswerOptions]
    ) -> AsyncTokenStream:
        """Answer a prompt token by token; with consent it is offered as training data too."""
        request = codec.generate_to_proto(text, **options)
        return AsyncTokenStream(self._stub, self._credentials, request, Budget(self._timeouts, total_seconds=timeout))

    async def answer(
        self,
        text: str | bytes | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the deadline travels with the call
        **options: Unpack[AnswerOptions],
    ) -> Answer:
        """Answer a prompt, all at once."""
        async with self.generate(text, timeout=timeout, **options) as stream:
            return stream._whole([token async for token in stream])

    async def get_sample(
        self,
        sample_id: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the deadline travels with the call
    ) -> Sample:
        """Whether a sample was received; with a key of scope admin, where it is now."""
        request = gateway_pb2.GetSampleRequest(sample_id=sample_id)
        return codec.sample_from_proto(await self._call(self._stub.GetSample, request, timeout))

    async def withdraw_consent(
        self,
        user_id: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the deadline travels with the call
    ) -> int:
        """Learn no more from anything the user sent so far; how many samples on their way that stops."""
        request = gateway_pb2.WithdrawConsentRequest(user_id=user_id)
        return (await self._call(self._stub.WithdrawConsent, request, timeout)).num_dropped

    async def _give(self, request: gateway_pb2.SubmitFeedbackRequest, timeout: float | None) -> FeedbackReceipt:  # noqa: ASYNC109
        return codec.feedback_from_proto(await self._call(self._stub.SubmitFeedback, request, timeout))

    async def _call(
        self, method: _Unary[RequestT, ResponseT], request: RequestT, total_seconds: float | None
    ) -> ResponseT:
        budget = Budget(self._timeouts, total_seconds=total_seconds)
        while True:
            try:
                return await method(request, timeout=budget.attempt_seconds, metadata=self._credentials.metadata)
            except grpc.RpcError as failed:
                error = from_rpc(failed)
                delay = budget.delay_after(error)
                if delay is None:
                    raise error from failed
            await asyncio.sleep(delay)


async def _as_async(submissions: Iterator[Submission]) -> AsyncIterator[Submission]:
    for submission in submissions:
        yield submission
