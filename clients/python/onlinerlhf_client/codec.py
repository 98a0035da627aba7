"""Between the client's values and protobuf."""

from onlinerlhf.v1 import gateway_pb2, records_pb2
from onlinerlhf_client.exceptions import ServerError, from_number
from onlinerlhf_client.types import (
    Admission,
    Completion,
    FinishReason,
    Receipt,
    Sample,
    Submission,
    SubmitResult,
    Token,
    VersionSpan,
)

_FINISH = {
    records_pb2.FINISH_REASON_EOS: FinishReason.EOS,
    records_pb2.FINISH_REASON_LENGTH: FinishReason.LENGTH,
}


def text_to_bytes(text: str | bytes) -> bytes:
    """UTF-8. A lone surrogate goes out as it is, so that the gateway refuses it by name."""
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text


def submission_to_proto(submission: Submission) -> gateway_pb2.SubmitPromptRequest:
    """The wire form of a submission."""
    return gateway_pb2.SubmitPromptRequest(
        user_id=submission.user_id,
        text=text_to_bytes(submission.text),
        idempotency_key=submission.idempotency_key,
        training_consent=submission.training_consent,
    )


def generate_to_proto(
    submission: Submission, *, max_tokens: int | None, temperature: float | None
) -> gateway_pb2.GenerateRequest:
    """The wire form of a prompt to answer."""
    return gateway_pb2.GenerateRequest(
        user_id=submission.user_id,
        text=text_to_bytes(submission.text),
        idempotency_key=submission.idempotency_key,
        training_consent=submission.training_consent,
        max_tokens=max_tokens or 0,
        temperature=temperature,
    )


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
    error = from_number(refusal.code, refusal.reason, refusal.message)
    return SubmitResult(submission=submission, receipt=None, error=error)


def event_from_proto(response: gateway_pb2.GenerateResponse) -> Admission | Token | Completion:
    """The next event of an answer."""
    match response.WhichOneof("event"):
        case "admission":
            return _admission_from_proto(response.admission)
        case "token":
            return Token(text=response.token.text, token_ids=tuple(response.token.token_ids))
        case "completion":
            return _completion_from_proto(response.completion)
        case other:
            raise ServerError(f"an event of a kind this client does not know: {other}")


def _admission_from_proto(admission: gateway_pb2.Admission) -> Admission:
    if admission.WhichOneof("outcome") == "receipt":
        return Admission(receipt=receipt_from_proto(admission.receipt), not_admitted=None)
    refusal = admission.not_admitted
    return Admission(receipt=None, not_admitted=from_number(refusal.code, refusal.reason, refusal.message))


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
