"""The streams of the asynchronous client."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc

from onlinerlhf.v1 import gateway_pb2
from onlinerlhf_client import codec
from onlinerlhf_client.answer_state import AnswerState
from onlinerlhf_client.credentials import Credentials
from onlinerlhf_client.exceptions import OnlineRLHFError, Unavailable, from_rpc
from onlinerlhf_client.retries import Budget
from onlinerlhf_client.types import Submission, SubmitResult, Token
from onlinerlhf_client.window import Window

if TYPE_CHECKING:
    from onlinerlhf.v1.gateway_pb2_grpc import GatewayServiceAsyncStub

# What grpc.aio itself reports, as INTERNAL, where it was sending while the other side ended the stream: the status
# that the other side gave is lost.
_WRITE_FAILED = "Internal error from Core"


class AsyncTokenStream(AnswerState):
    """The tokens of an answer as they come. A retry happens only before the first of them."""

    def __init__(
        self,
        stub: "GatewayServiceAsyncStub",
        credentials: Credentials,
        request: gateway_pb2.GenerateRequest,
        budget: Budget,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__()
        self._stub = stub
        self._credentials = credentials
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
        call = self._stub.Generate(
            self._request, timeout=self._budget.remaining_seconds, metadata=self._credentials.metadata
        )
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


class AsyncSubmitStream:
    """One bidirectional stream of `submit_many`."""

    def __init__(
        self, stub: "GatewayServiceAsyncStub", credentials: Credentials, waiting: Window, budget: Budget
    ) -> None:
        self._waiting = waiting
        self._budget = budget
        self._requests: asyncio.Queue[gateway_pb2.SubmitPromptRequest | None] = asyncio.Queue()
        for submission in waiting.unanswered:
            self._requests.put_nowait(codec.submission_to_proto(submission))
        # The deadline only bounds the wait for a reply: a stream that outlives it is opened anew.
        self._call = stub.SubmitPrompts(
            self._outgoing(), timeout=budget.remaining_seconds, metadata=credentials.metadata
        )
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
        result = self._waiting.settle(reply, self._budget)
        self._budget.renew()
        return result

    def close(self) -> None:
        """End the call and the task that sends for it."""
        self._requests.put_nowait(None)
        self._call.cancel()
