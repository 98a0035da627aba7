"""Between the client's values and protobuf."""

from collections.abc import Sequence

from onlinerlhf.v1 import gateway_pb2, records_pb2
from onlinerlhf_client.exceptions import ServerError, from_number
from onlinerlhf_client.types import (
    Completion,
    Consent,
    FeedbackReceipt,
    FinishReason,
    Message,
    Receipt,
    Role,
    Sample,
    Submission,
    SubmitResult,
    Token,
    VersionSpan,
    new_idempotency_key,
)

_FINISH = {
    records_pb2.FINISH_REASON_EOS: FinishReason.EOS,
    records_pb2.FINISH_REASON_LENGTH: FinishReason.LENGTH,
    records_pb2.FINISH_REASON_STOP: FinishReason.STOP,
}
_ROLES = {
    Role.SYSTEM: gateway_pb2.ROLE_SYSTEM,
    Role.USER: gateway_pb2.ROLE_USER,
    Role.ASSISTANT: gateway_pb2.ROLE_ASSISTANT,
}


def text_to_bytes(text: str | bytes) -> bytes:
    """UTF-8. A lone surrogate goes out as it is, so that the gateway refuses it by name."""
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text


def submission_to_proto(submission: Submission) -> gateway_pb2.SubmitPromptRequest:
    """The wire form of a submission."""
    _check_one_prompt(submission.text, submission.messages)
    return gateway_pb2.SubmitPromptRequest(
        user_id=submission.user_id,
        text=text_to_bytes(submission.text or b""),
        messages=_messages_to_proto(submission.messages),
        idempotency_key=submission.idempotency_key,
        consent=_consent_to_proto(submission.consent),
        use_case=submission.use_case,
    )


def generate_to_proto(
    text: str | bytes | None = None,
    *,
    user_id: str,
    messages: Sequence[Message] = (),
    consent: Consent | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop: Sequence[str] = (),
    use_case: str = "",
    idempotency_key: str | None = None,
) -> gateway_pb2.GenerateRequest:
    """The wire form of a prompt to answer."""
    _check_one_prompt(text, messages)
    if max_tokens is not None and max_tokens < 1:
        # On the wire 0 is the gateway's default, which is not what was asked for.
        raise ValueError(f"max_tokens is {max_tokens}; at least 1 is needed")
    return gateway_pb2.GenerateRequest(
        user_id=user_id,
        text=text_to_bytes(text or b""),
        messages=_messages_to_proto(messages),
        idempotency_key=new_idempotency_key() if idempotency_key is None else idempotency_key,
        consent=_consent_to_proto(consent),
        max_tokens=max_tokens or 0,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        stop=[stop] if isinstance(stop, str) else stop,
        use_case=use_case,
    )


def _check_one_prompt(text: str | bytes | None, messages: Sequence[Message]) -> None:
    if (text is None) == (not messages):
        raise ValueError("a prompt is either a text or messages")


def _messages_to_proto(messages: Sequence[Message]) -> list[gateway_pb2.Message]:
    return [gateway_pb2.Message(role=_ROLES[Role(each.role)], text=text_to_bytes(each.text)) for each in messages]


def _consent_to_proto(consent: Consent | None) -> gateway_pb2.Consent | None:
    if consent is None:
        return None
    return gateway_pb2.Consent(notice_version=consent.notice_version, shown_at_seconds=consent.shown_at_seconds)


def receipt_from_proto(receipt: gateway_pb2.Receipt) -> Receipt:
    """A receipt."""
    return Receipt(sample_id=receipt.sample_id, replayed=receipt.replayed, num_prompt_tokens=receipt.num_prompt_tokens)


def result_from_proto(submission: Submission, reply: gateway_pb2.SubmitPromptsReply) -> SubmitResult:
    """The reply to one submission of a stream."""
    if reply.idempotency_key != submission.idempotency_key:
        raise ServerError("the gateway answered another submission than the one whose turn it was")
    if reply.WhichOneof("outcome") == "receipt":
        return SubmitResult(submission=submission, receipt=receipt_from_proto(reply.receipt), error=None)
    refusal = reply.refusal
    error = from_number(
        refusal.code, refusal.reason, refusal.message, retry_after_seconds=refusal.retry_after_seconds or None
    )
    return SubmitResult(submission=submission, receipt=None, error=error)


def event_from_proto(response: gateway_pb2.GenerateResponse) -> Receipt | Token | Completion:
    """The next event of an answer."""
    match response.WhichOneof("event"):
        case "receipt":
            return receipt_from_proto(response.receipt)
        case "token":
            token = response.token
            return Token(text=token.text, token_ids=tuple(token.token_ids), logprobs=tuple(token.logprobs))
        case "completion":
            return _completion_from_proto(response.completion)
        case other:
            raise ServerError(f"an event of a kind this client does not know: {other}")


def _completion_from_proto(completion: gateway_pb2.Completion) -> Completion:
    finish_reason = _FINISH.get(completion.finish_reason)
    if finish_reason is None:
        raise ServerError("the answer ended without a finish reason that this client knows")
    return Completion(
        finish_reason=finish_reason,
        version_spans=tuple(
            VersionSpan(version=span.version, num_tokens=span.num_tokens) for span in completion.version_spans
        ),
        num_prompt_tokens=completion.num_prompt_tokens,
        num_response_tokens=completion.num_response_tokens,
    )


def sample_from_proto(sample: gateway_pb2.GetSampleResponse) -> Sample:
    """Where a sample is."""
    return Sample(
        sample_id=sample.sample_id,
        state=sample.state,
        drop_reason=sample.drop_reason or None,
        trained_version=sample.trained_version or None,
    )


def feedback_from_proto(response: gateway_pb2.SubmitFeedbackResponse) -> FeedbackReceipt:
    """A judgement was stored."""
    return FeedbackReceipt(feedback_id=response.feedback_id, replayed=response.replayed)
