import pytest

from onlinerlhf.v1 import gateway_pb2, records_pb2
from onlinerlhf_client import Admission, Completion, FinishReason, LimitReached, ServerError, Submission, Token
from onlinerlhf_client.codec import event_from_proto, sample_from_proto, submission_to_proto, text_to_bytes


def test_text_goes_out_as_utf8_and_bytes_as_they_are() -> None:
    assert text_to_bytes("zoë") == b"zo\xc3\xab"
    assert text_to_bytes(b"\xff") == b"\xff"


def test_a_lone_surrogate_goes_out_for_the_gateway_to_refuse() -> None:
    assert text_to_bytes("\ud800") == b"\xed\xa0\x80"


def test_every_submission_has_its_own_key() -> None:
    first, second = Submission(text="a", user_id="ada"), Submission(text="a", user_id="ada")
    assert first.idempotency_key != second.idempotency_key
    assert submission_to_proto(first).idempotency_key == first.idempotency_key


def test_the_events_of_an_answer() -> None:
    token = gateway_pb2.GenerateResponse(token=gateway_pb2.Token(text="hi", token_ids=[5, 6]))
    assert event_from_proto(token) == Token(text="hi", token_ids=(5, 6))
    completion = gateway_pb2.Completion(
        finish_reason=records_pb2.FINISH_REASON_LENGTH,
        version_spans=[
            records_pb2.VersionSpan(version=3, num_tokens=1),
            records_pb2.VersionSpan(version=4, num_tokens=1),
        ],
        num_prompt_tokens=7,
        num_response_tokens=2,
    )
    end = event_from_proto(gateway_pb2.GenerateResponse(completion=completion))
    assert isinstance(end, Completion)
    assert (end.finish_reason, end.policy_version, end.num_response_tokens) == (FinishReason.LENGTH, 4, 2)


def test_a_refused_training_offer_is_a_value() -> None:
    refusal = gateway_pb2.Refusal(code=8, reason="user_cap", message="why")
    response = gateway_pb2.GenerateResponse(admission=gateway_pb2.Admission(not_admitted=refusal))
    admission = event_from_proto(response)
    assert isinstance(admission, Admission)
    assert admission.receipt is None
    assert isinstance(admission.not_admitted, LimitReached)


def test_an_answer_without_a_finish_reason_is_an_error() -> None:
    with pytest.raises(ServerError):
        event_from_proto(gateway_pb2.GenerateResponse(completion=gateway_pb2.Completion()))


def test_a_sample_that_is_neither_dropped_nor_trained_says_nothing_of_it() -> None:
    sample = sample_from_proto(gateway_pb2.GetSampleResponse(sample_id="s", state="pool"))
    assert (sample.state, sample.drop_reason, sample.trained_version) == ("pool", None, None)
