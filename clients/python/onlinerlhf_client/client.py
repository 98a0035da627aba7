"""The synchronous client."""

import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self, TypeVar, Unpack

import grpc

from onlinerlhf.v1 import gateway_pb2, gateway_pb2_grpc
from onlinerlhf_client import codec
from onlinerlhf_client.channels import Tls, security
from onlinerlhf_client.credentials import Credentials, Metadata
from onlinerlhf_client.exceptions import OnlineRLHFError, from_rpc
from onlinerlhf_client.feedback import Feedback
from onlinerlhf_client.options import AnswerOptions
from onlinerlhf_client.retries import Budget, Timeouts
from onlinerlhf_client.streams import SubmitStream, TokenStream
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

RequestT = TypeVar("RequestT", contravariant=True)
ResponseT = TypeVar("ResponseT", covariant=True)


class _Unary(Protocol[RequestT, ResponseT]):
    def __call__(self, request: RequestT, /, *, timeout: float, metadata: Metadata) -> ResponseT: ...


class Client:
    """Talks to a gateway. Safe to share between threads; close it, or use it as a context manager."""

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
            self._channel = grpc.insecure_channel(target, options=options)
        else:
            self._channel = grpc.secure_channel(target, credentials, options=options)
        self._stub = gateway_pb2_grpc.GatewayServiceStub(self._channel)
        self.feedback = Feedback(self._give)
        """Judgements of answers."""

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
        text: str | bytes | None = None,
        *,
        user_id: str,
        consent: Consent | None,
        messages: Sequence[Message] = (),
        use_case: str = "",
        idempotency_key: str | None = None,
        timeout: float | None = None,
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
            stream = SubmitStream(self._stub, self._credentials, waiting, budget)
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
        self, text: str | bytes | None = None, *, timeout: float | None = None, **options: Unpack[AnswerOptions]
    ) -> TokenStream:
        """Answer a prompt token by token; with consent it is offered as training data too."""
        request = codec.generate_to_proto(text, **options)
        return TokenStream(self._stub, self._credentials, request, Budget(self._timeouts, total_seconds=timeout))

    def answer(
        self, text: str | bytes | None = None, *, timeout: float | None = None, **options: Unpack[AnswerOptions]
    ) -> Answer:
        """Answer a prompt, all at once."""
        with self.generate(text, timeout=timeout, **options) as stream:
            return stream._whole(list(stream))

    def get_sample(self, sample_id: str, *, timeout: float | None = None) -> Sample:
        """Whether a sample was received; with a key of scope admin, where it is now."""
        request = gateway_pb2.GetSampleRequest(sample_id=sample_id)
        return codec.sample_from_proto(self._call(self._stub.GetSample, request, timeout))

    def withdraw_consent(self, user_id: str, *, timeout: float | None = None) -> int:
        """Learn no more from anything the user sent so far; how many samples on their way that stops."""
        request = gateway_pb2.WithdrawConsentRequest(user_id=user_id)
        return self._call(self._stub.WithdrawConsent, request, timeout).num_dropped

    def _give(self, request: gateway_pb2.SubmitFeedbackRequest, timeout: float | None) -> FeedbackReceipt:
        return codec.feedback_from_proto(self._call(self._stub.SubmitFeedback, request, timeout))

    def _call(self, method: _Unary[RequestT, ResponseT], request: RequestT, timeout: float | None) -> ResponseT:
        budget = Budget(self._timeouts, total_seconds=timeout)
        while True:
            try:
                return method(request, timeout=budget.attempt_seconds, metadata=self._credentials.metadata)
            except grpc.RpcError as failed:
                error = from_rpc(failed)
                delay = budget.delay_after(error)
                if delay is None:
                    raise error from failed
            time.sleep(delay)
