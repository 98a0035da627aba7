"""The streams of the synchronous client."""

import queue
import time
from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import Self

import grpc

from onlinerlhf.v1 import gateway_pb2, gateway_pb2_grpc
from onlinerlhf_client import codec
from onlinerlhf_client.answer_state import AnswerState
from onlinerlhf_client.credentials import Credentials
from onlinerlhf_client.exceptions import OnlineRLHFError, Unavailable, from_rpc
from onlinerlhf_client.retries import Budget
from onlinerlhf_client.types import Submission, SubmitResult, Token
from onlinerlhf_client.window import Window


class TokenStream(AnswerState):
    """The tokens of an answer as they come. A retry happens only before the first of them."""

    def __init__(
        self,
        stub: gateway_pb2_grpc.GatewayServiceStub,
        credentials: Credentials,
        request: gateway_pb2.GenerateRequest,
        budget: Budget,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__()
        self._stub = stub
        self._credentials = credentials
        self._request = request
        self._budget = budget
        self._sleep = sleep
        self._call: grpc.Call | None = None
        self._tokens = self._run()

    def __iter__(self) -> Iterator[Token]:
        return self._tokens

    def __next__(self) -> Token:
        return next(self._tokens)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop; the platform stops sampling."""
        if self._call is not None:
            self._call.cancel()
        self._tokens.close()

    def _run(self) -> Generator[Token, None, None]:
        while True:
            try:
                yield from self._attempt()
                return
            except OnlineRLHFError as error:
                delay = None if self._started else self._budget.delay_after(error)
                if delay is None:
                    raise
            self._sleep(delay)

    def _attempt(self) -> Iterator[Token]:
        call = self._stub.Generate(
            self._request, timeout=self._budget.remaining_seconds, metadata=self._credentials.metadata
        )
        self._call = call
        try:
            for response in call:
                token = self._take(codec.event_from_proto(response))
                if token is not None:
                    yield token
        except grpc.RpcError as failed:
            raise from_rpc(failed) from failed
        self._check_complete()


class SubmitStream:
    """One bidirectional stream of `submit_many`."""

    def __init__(
        self,
        stub: gateway_pb2_grpc.GatewayServiceStub,
        credentials: Credentials,
        waiting: Window,
        budget: Budget,
    ) -> None:
        self._waiting = waiting
        self._budget = budget
        self._requests: queue.SimpleQueue[gateway_pb2.SubmitPromptRequest | None] = queue.SimpleQueue()
        for submission in waiting.unanswered:
            self._requests.put(codec.submission_to_proto(submission))
        # The deadline only bounds the wait for a reply: a stream that outlives it is opened anew.
        self._replies = stub.SubmitPrompts(
            iter(self._requests.get, None), timeout=budget.remaining_seconds, metadata=credentials.metadata
        )

    def fill(self, source: Iterator[Submission]) -> bool:
        """Send what the window allows. False: all is sent and answered."""
        while self._waiting.has_room and (submission := next(source, None)) is not None:
            if not self._waiting:
                self._budget.renew()
            self._waiting.add(submission)
            self._requests.put(codec.submission_to_proto(submission))
        return bool(self._waiting)

    def next_result(self) -> SubmitResult:
        """The reply to the oldest submission that has none."""
        try:
            reply = next(self._replies, None)
        except grpc.RpcError as failed:
            raise from_rpc(failed) from failed
        if reply is None:
            raise Unavailable("the gateway ended the stream early", code=grpc.StatusCode.UNAVAILABLE)
        result = self._waiting.settle(reply, self._budget)
        self._budget.renew()
        return result

    def close(self) -> None:
        """Let gRPC's sending thread end, and the call with it."""
        self._requests.put(None)
        self._replies.cancel()
