"""The asynchronous client: method for method the synchronous one."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import grpc

from onlinerlhf.v1 import gateway_pb2, gateway_pb2_grpc
from onlinerlhf_client import codec
from onlinerlhf_client.answer_state import AnswerState
from onlinerlhf_client.channels import OPTIONS
from onlinerlhf_client.exceptions import OnlineRLHFError, Unavailable, from_rpc
from onlinerlhf_client.retries import Budget, Timeouts
from onlinerlhf_client.types import (
    Answer,
    Receipt,
    Sample,
    Submission,
    SubmitResult,
    Token,
    new_idempotency_key,
)
from onlinerlhf_client.window import Window

if TYPE_CHECKING:
    from onlinerlhf.v1.gateway_pb2_grpc import GatewayServiceAsyncStub

# What grpc.aio itself reports, as INTERNAL, where it was sending while the other side ended the stream: the status
# that the other side gave is lost.
_WRITE_FAILED = "Internal error from Core"

RequestT = TypeVar("RequestT", contravariant=True)
ResponseT = TypeVar("ResponseT", covariant=True)


class _Unary(Protocol[RequestT, ResponseT]):
    def __call__(self, request: RequestT, /, *, timeout: float) -> Awaitable[ResponseT]: ...


class AsyncClient:
    """Talks to a gateway from one event loop; close it, or use it as an async context manager."""

    def __init__(self, target: str, *, timeouts: Timeouts | None = None) -> None:
        self._timeouts = timeouts or Timeouts()
        self._channel = grpc.aio.insecure_channel(target, options=OPTIONS)
        self._stub: GatewayServiceAsyncStub = gateway_pb2_grpc.GatewayServiceStub(self._channel)

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
        text: str | bytes,
        *,
        user_id: str,
        idempotency_key: str | None = None,
        training_consent: bool = True,
        timeout: float | None = None,  # noqa: ASYNC109 - the deadline travels with the call
    ) -> Receipt:
        """Offer a prompt as training data. Retried until `timeout`, always with the same idempotency key."""
        submission = Submission(
            text=text,
            user_id=user_id,
            idempotency_key=new_idempotency_key() if idempotency_key is None else idempotency_key,
            training_consent=training_consent,
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
            stream = _SubmitStream(self._stub, waiting, budget)
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
        self,
        text: str | bytes,
        *,
        user_id: str,
        max_tokens: int | None = None,
        temperature: float | None = None,
        training_consent: bool = False,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> "AsyncTokenStream":
        """Answer a prompt token by token; with consent it is offered as training data too."""
        submission = Submission(
            text=text,
            user_id=user_id,
            idempotency_key=new_idempotency_key() if idempotency_key is None else idempotency_key,
            training_consent=training_consent,
        )
        request = codec.generate_to_proto(submission, max_tokens=max_tokens, temperature=temperature)
        return AsyncTokenStream(self._stub, request, Budget(self._timeouts, total_seconds=timeout))

    async def answer(
        self,
        text: str | bytes,
        *,
        user_id: str,
        max_tokens: int | None = None,
        temperature: float | None = None,
        training_consent: bool = False,
        idempotency_key: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the deadline travels with the call
    ) -> Answer:
        """Answer a prompt, all at once."""
        async with self.generate(
            text,
            user_id=user_id,
            max_tokens=max_tokens,
            temperature=temperature,
            training_consent=training_consent,
            idempotency_key=idempotency_key,
            timeout=timeout,
        ) as stream:
            return stream._whole([token async for token in stream])

    async def get_sample(
        self,
        sample_id: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the deadline travels with the call
    ) -> Sample:
        """Where a sample is now."""
        request = gateway_pb2.GetSampleRequest(sample_id=sample_id)
        return codec.sample_from_proto(await self._call(self._stub.GetSample, request, timeout))

    async def _call(
        self, method: _Unary[RequestT, ResponseT], request: RequestT, total_seconds: float | None
    ) -> ResponseT:
        budget = Budget(self._timeouts, total_seconds=total_seconds)
        while True:
            try:
                return await method(request, timeout=budget.attempt_seconds)
            except grpc.RpcError as failed:
                error = from_rpc(failed)
                delay = budget.delay_after(error)
                if delay is None:
                    raise error from failed
            await asyncio.sleep(delay)


class AsyncTokenStream(AnswerState):
    """The tokens of an answer as they come. A retry happens only before the first of them."""

    def __init__(
        self,
        stub: "GatewayServiceAsyncStub",
        request: gateway_pb2.GenerateRequest,
        budget: Budget,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__()
        self._stub = stub
        self._request = request
        self._budget = budget
        self._sleep = sleep
        self._tokens = self._run()

    def __aiter__(self) -> AsyncIterator[Token]:
        return self._tokens

    async def __anext__(self) -> Token:
        return await anext(self._tokens)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop; the platform stops sampling."""
        await self._tokens.aclose()

    async def _run(self) -> AsyncGenerator[Token, None]:
        while True:
            try:
                async with aclosing(self._attempt()) as tokens:
                    async for token in tokens:
                        yield token
                return
            except OnlineRLHFError as error:
                delay = None if self._started else self._budget.delay_after(error)
                if delay is None:
                    raise
            await self._sleep(delay)

    async def _attempt(self) -> AsyncGenerator[Token, None]:
        call = self._stub.Generate(self._request, timeout=self._budget.remaining_seconds)
        try:
            async for response in call:
                token = self._take(codec.event_from_proto(response))
                if token is not None:
                    yield token
        except grpc.RpcError as failed:
            raise from_rpc(failed) from failed
        finally:
            call.cancel()
        self._check_complete()


class _SubmitStream:
    """One bidirectional stream of `submit_many`."""

    def __init__(self, stub: "GatewayServiceAsyncStub", waiting: Window, budget: Budget) -> None:
        self._waiting = waiting
        self._budget = budget
        self._requests: asyncio.Queue[gateway_pb2.SubmitPromptRequest | None] = asyncio.Queue()
        for submission in waiting.unanswered:
            self._requests.put_nowait(codec.submission_to_proto(submission))
        # The deadline only bounds the wait for a reply: a stream that outlives it is opened anew.
        self._call = stub.SubmitPrompts(self._outgoing(), timeout=budget.remaining_seconds)
        self._replies = aiter(self._call)

    async def _outgoing(self) -> AsyncIterator[gateway_pb2.SubmitPromptRequest]:
        while (request := await self._requests.get()) is not None:
            yield request

    async def fill(self, source: AsyncIterator[Submission]) -> bool:
        """Send what the window allows. False: all is sent and answered."""
        while self._waiting.has_room and (submission := await anext(source, None)) is not None:
            if not self._waiting:
                self._budget.renew()
            self._waiting.add(submission)
            self._requests.put_nowait(codec.submission_to_proto(submission))
        return bool(self._waiting)

    async def next_result(self) -> SubmitResult:
        """The reply to the oldest submission that has none."""
        try:
            reply = await anext(self._replies, None)
        except grpc.RpcError as failed:
            error = from_rpc(failed)
            if str(error) == _WRITE_FAILED:
                error = Unavailable("the stream broke while sending", code=grpc.StatusCode.UNAVAILABLE)
            raise error from failed
        if reply is None:
            raise Unavailable("the gateway ended the stream early", code=grpc.StatusCode.UNAVAILABLE)
        result = self._waiting.settle(reply)
        self._budget.renew()
        return result

    def close(self) -> None:
        """End the call and the task that sends for it."""
        self._requests.put_nowait(None)
        self._call.cancel()


async def _as_async(submissions: Iterator[Submission]) -> AsyncIterator[Submission]:
    for submission in submissions:
        yield submission
