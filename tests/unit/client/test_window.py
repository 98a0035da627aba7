import pytest

from onlinerlhf.v1 import gateway_pb2
from onlinerlhf_client import AlreadyExists, LimitReached, ServerError, Submission, Timeouts, Unavailable
from onlinerlhf_client.retries import Budget
from onlinerlhf_client.window import Window

FIRST = Submission(text="one", user_id="ada", consent=None, idempotency_key="k1")
SECOND = Submission(text="two", user_id="ada", consent=None, idempotency_key="k2")

BUDGET = Budget(Timeouts(total_seconds=10.0, max_delay_seconds=2.0), clock=lambda: 100.0)


def admitted(key: str) -> gateway_pb2.SubmitPromptsReply:
    return gateway_pb2.SubmitPromptsReply(idempotency_key=key, receipt=gateway_pb2.Receipt(sample_id="s-" + key))


def refused(key: str, code: int, reason: str, retry_after: float = 0.0) -> gateway_pb2.SubmitPromptsReply:
    refusal = gateway_pb2.Refusal(code=code, reason=reason, message="why", retry_after_seconds=retry_after)
    return gateway_pb2.SubmitPromptsReply(idempotency_key=key, refusal=refusal)


def window() -> Window:
    waiting = Window(2)
    waiting.add(FIRST)
    waiting.add(SECOND)
    return waiting


def test_a_full_window_has_no_room_until_a_reply() -> None:
    waiting = window()
    assert not waiting.has_room
    assert waiting.settle(admitted("k1"), BUDGET).unwrap().sample_id == "s-k1"
    assert waiting.has_room
    assert waiting.unanswered == (SECOND,)


def test_a_refusal_settles_its_submission() -> None:
    result = window().settle(refused("k1", 6, "duplicate"), BUDGET)
    assert isinstance(result.error, AlreadyExists)
    with pytest.raises(AlreadyExists):
        result.unwrap()


def test_a_submission_that_may_succeed_later_stays_unanswered() -> None:
    waiting = window()
    with pytest.raises(Unavailable):
        waiting.settle(refused("k1", 14, "unavailable"), BUDGET)
    assert waiting.unanswered == (FIRST, SECOND)


def test_a_limit_that_ends_in_time_leaves_its_submission_unanswered() -> None:
    waiting = window()
    with pytest.raises(LimitReached) as limit:
        waiting.settle(refused("k1", 8, "limit_reached", retry_after=7.5), BUDGET)
    assert limit.value.retry_after_seconds == 7.5
    assert waiting.unanswered == (FIRST, SECOND)


@pytest.mark.parametrize("retry_after", [8.0, 0.0])
def test_a_limit_that_lasts_longer_or_for_ever_is_the_result_of_its_submission_only(retry_after: float) -> None:
    waiting = window()
    result = waiting.settle(refused("k1", 8, "limit_reached", retry_after), BUDGET)
    assert isinstance(result.error, LimitReached)
    assert result.error.retry_after_seconds == (retry_after or None)
    assert waiting.unanswered == (SECOND,)


def test_a_reply_out_of_turn_is_an_error() -> None:
    with pytest.raises(ServerError):
        window().settle(admitted("k2"), BUDGET)


def test_a_window_needs_room_for_one() -> None:
    with pytest.raises(ValueError, match="0 submissions"):
        Window(0)
