import pytest

from onlinerlhf.v1 import gateway_pb2, records_pb2
from onlinerlhf_client import Completion, Consent, FinishReason, Message, Receipt, Role, ServerError, Submission, Token
from onlinerlhf_client.codec import (
    event_from_proto,
    generate_to_proto,
    sample_from_proto,
    submission_to_proto,
    text_to_bytes,
)

CONSENT = Consent(notice_version="2026-01", shown_at_seconds=1_700_000_000.5)


def test_text_goes_out_as_utf8_and_bytes_as_they_are() -> None:
    assert text_to_bytes("zoë") == b"zo\xc3\xab"
    assert text_to_bytes(b"\xff") == b"\xff"


def test_a_lone_surrogate_goes_out_for_the_gateway_to_refuse() -> None:
    assert text_to_bytes("\ud800") == b"\xed\xa0\x80"


def test_every_submission_has_its_own_key() -> None:
    first, second = (Submission(text="a", user_id="ada", consent=CONSENT) for _ in range(2))
    assert first.idempotency_key != second.idempotency_key
    assert submission_to_proto(first).idempotency_key == first.idempotency_key


def test_the_events_of_an_answer() -> None:
    receipt = gateway_pb2.GenerateResponse(receipt=gateway_pb2.Receipt(sample_id="s", num_prompt_tokens=7))
    assert event_from_proto(receipt) == Receipt(sample_id="s", replayed=False, num_prompt_tokens=7)
    token = gateway_pb2.GenerateResponse(token=gateway_pb2.Token(text="hi", token_ids=[5, 6], logprobs=[-0.5, -0.25]))
    assert event_from_proto(token) == Token(text="hi", token_ids=(5, 6), logprobs=(-0.5, -0.25))
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


def test_consent_travels_with_its_notice_and_its_time() -> None:
    sent = submission_to_proto(Submission(text="a", user_id="ada", consent=CONSENT, use_case="chat")).consent
    assert (sent.notice_version, sent.shown_at_seconds) == ("2026-01", 1_700_000_000.5)


def test_without_consent_none_is_sent() -> None:
    assert not submission_to_proto(Submission(text="a", user_id="ada", consent=None)).HasField("consent")
    assert not generate_to_proto("a", user_id="ada").HasField("consent")


def test_a_conversation_goes_out_in_place_of_a_text() -> None:
    turns = (Message(Role.SYSTEM, "be brief"), Message("user", "zoë"))
    sent = submission_to_proto(Submission(messages=turns, user_id="ada", consent=CONSENT))
    assert sent.text == b""
    assert [(turn.role, turn.text) for turn in sent.messages] == [
        (gateway_pb2.ROLE_SYSTEM, b"be brief"),
        (gateway_pb2.ROLE_USER, b"zo\xc3\xab"),
    ]


def test_a_prompt_is_either_a_text_or_messages() -> None:
    with pytest.raises(ValueError, match="either a text or messages"):
        generate_to_proto(user_id="ada")
    with pytest.raises(ValueError, match="either a text or messages"):
        generate_to_proto("a", messages=[Message(Role.USER, "a")], user_id="ada")


def test_an_empty_text_is_a_text_for_the_gateway_to_refuse() -> None:
    assert generate_to_proto("", user_id="ada").text == b""


def test_a_role_that_there_is_not_is_an_error() -> None:
    with pytest.raises(ValueError, match="tool"):
        generate_to_proto(messages=[Message("tool", "a")], user_id="ada")


def test_sampling_settings_are_sent_only_where_they_are_given() -> None:
    plain = generate_to_proto("a", user_id="ada")
    assert not any(plain.HasField(name) for name in ("temperature", "top_p", "seed"))
    assert (plain.max_tokens, list(plain.stop)) == (0, [])
    full = generate_to_proto(
        "a", user_id="ada", max_tokens=5, temperature=0.0, top_p=0.5, seed=0, stop=["\n", "end"], idempotency_key="k"
    )
    assert (full.max_tokens, full.temperature, full.top_p, full.seed) == (5, 0.0, 0.5, 0)
    assert (list(full.stop), full.idempotency_key) == (["\n", "end"], "k")
    assert full.HasField("temperature")
    assert full.HasField("seed")


def test_no_tokens_at_all_are_not_taken_for_the_default() -> None:
    with pytest.raises(ValueError, match="max_tokens is 0"):
        generate_to_proto("a", user_id="ada", max_tokens=0)


def test_an_answer_without_a_finish_reason_is_an_error() -> None:
    with pytest.raises(ServerError):
        event_from_proto(gateway_pb2.GenerateResponse(completion=gateway_pb2.Completion()))


def test_a_sample_that_is_neither_dropped_nor_trained_says_nothing_of_it() -> None:
    sample = sample_from_proto(gateway_pb2.GetSampleResponse(sample_id="s", state="pool"))
    assert (sample.state, sample.drop_reason, sample.trained_version) == ("pool", None, None)
