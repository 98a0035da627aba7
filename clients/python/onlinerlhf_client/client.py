"""The synchronous client."""

import queue
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import Protocol, Self, TypeVar

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

RequestT = TypeVar("RequestT", contravariant=True)
ResponseT = TypeVar("ResponseT", covariant=True)


class _Unary(Protocol[RequestT, ResponseT]):
    def __call__(self, request: RequestT, /, *, timeout: float) -> ResponseT: ...


class Client:
    """Talks to a gateway. Safe to share between threads; close it, or use it as a context manager."""

    def __init__(self, target: str, *, timeouts: Timeouts | None = None) -> None:
        self._timeouts = timeouts or Timeouts()
        self._channel = grpc.insecure_channel(target, options=OPTIONS)
        self._stub = gateway_pb2_grpc.GatewayServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all calls and the connection."""
        self._channel.close()

    def submit(
        self,
        text: str | bytes,
        *,
        user_id: str,
        idempotency_key: str | None = None,
        training_consent: bool = True,
        timeout: float | None = None,
    ) -> Receipt:
        """Offer a prompt as training data. Retried until `timeout`, always with the same idempotency key."""
        submission = Submission(
            text=text,
            user_id=user_id,
            idempotency_key=new_idempotency_key() if idempotency_key is None else idempotency_key,
            training_consent=training_consent,
        )
        response = self._call(self._stub.SubmitPrompt, codec.submission_to_proto(submission), timeout)
        return codec.receipt_from_proto(response.receipt)

    def submit_many(self, submissions: Iterable[Submission], *, window: int = 64) -> Iterator[SubmitResult]:
        """Offer many prompts over one stream: a result each, in order; a refused one does not end it.

        Up to `window` are on their way at a time. After a broken stream those without a reply are sent again.
        """
        budget = Budget(self._timeouts)
        waiting = Window(window)
        source = iter(submissions)
        while True:
            stream = _SubmitStream(self._stub, waiting, budget)
            try:
                while stream.fill(source):
                    yield stream.next_result()
                return
            except OnlineRLHFError as error:
                delay = budget.delay_after(error)
                if delay is None:
                    raise
            finally:
                stream.close()
            time.sleep(delay)

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
    ) -> "TokenStream":
        """Answer a prompt token by token; with consent it is offered as training data too."""
        submission = Submission(
            text=text,
            user_id=user_id,
            idempotency_key=new_idempotency_key() if idempotency_key is None else idempotency_key,
            training_consent=training_consent,
        )
        request = codec.generate_to_proto(submission, max_tokens=max_tokens, temperature=temperature)
        return TokenStream(self._stub, request, Budget(self._timeouts, total_seconds=timeout))

    def answer(
        self,
        text: str | bytes,
        *,
        user_id: str,
        max_tokens: int | None = None,
        temperature: float | None = None,
        training_consent: bool = False,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Answer a prompt, all at once."""
        with self.generate(
            text,
            user_id=user_id,
            max_tokens=max_tokens,
            temperature=temperature,
            training_consent=training_consent,
            idempotency_key=idempotency_key,
            timeout=timeout,
        ) as stream:
            return stream._whole(list(stream))

    def get_sample(self, sample_id: str, *, timeout: float | None = None) -> Sample:
        """Where a sample is now."""
        request = gateway_pb2.GetSampleRequest(sample_id=sample_id)
        return codec.sample_from_proto(self._call(self._stub.GetSample, request, timeout))

    def _call(self, method: _Unary[RequestT, ResponseT], request: RequestT, timeout: float | None) -> ResponseT:
        budget = Budget(self._timeouts, total_seconds=timeout)
        while True:
            try:
                return method(request, timeout=budget.attempt_seconds)
            except grpc.RpcError as failed:
                error = from_rpc(failed)
                delay = budget.delay_after(error)
                if delay is None:
                    raise error from failed
            time.sleep(delay)


class TokenStream(AnswerState):
    """The tokens of an answer as they come. A retry happens only before the first of them."""

    def __init__(
        self,
        stub: gateway_pb2_grpc.GatewayServiceStub,
        request: gateway_pb2.GenerateRequest,
        budget: Budget,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__()
        self._stub = stub
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
        call = self._stub.Generate(self._request, timeout=self._budget.remaining_seconds)
        self._call = call
        try:
            for response in call:
                token = self._take(codec.event_from_proto(response))
                if token is not None:
                    yield token
        except grpc.RpcError as failed:
            raise from_rpc(failed) from failed
        self._check_complete()


class _SubmitStream:
    """One bidirectional stream of `submit_many`."""

    def __init__(self, stub: gateway_pb2_grpc.GatewayServiceStub, waiting: Window, budget: Budget) -> None:
        self._waiting = waiting
        self._budget = budget
        self._requests: queue.SimpleQueue[gateway_pb2.SubmitPromptRequest | None] = queue.SimpleQueue()
        for submission in waiting.unanswered:
            self._requests.put(codec.submission_to_proto(submission))
        # The deadline only bounds the wait for a reply: a stream that outlives it is opened anew.
        self._replies = stub.SubmitPrompts(iter(self._requests.get, None), timeout=budget.remaining_seconds)

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
        result = self._waiting.settle(reply)
        self._budget.renew()
        return result

    def close(self) -> None:
        """Let gRPC's sending thread end, and the call with it."""
        self._requests.put(None)
        self._replies.cancel()
