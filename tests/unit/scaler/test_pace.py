"""How long the scaler rests after what went wrong, and what the API server's answers are called."""

import pytest

from onlinerlhf.core.errors import (
    AlreadyExists,
    InvalidInput,
    LimitReached,
    NotFound,
    OnlineRLHFError,
    PermissionDenied,
    Unauthenticated,
)
from onlinerlhf.scaler.kube_errors import ApiAway, Conflict, Expired, error_of, kind_of, retry_after
from onlinerlhf.scaler.pace import Pace


def test_each_failure_in_a_row_doubles_the_rest_up_to_a_bound() -> None:
    pace = Pace(base_seconds=5.0, max_seconds=30.0)
    rests = [pace.after(ApiAway("away")) for _ in range(5)]
    for rest, most in zip(rests, [5, 10, 20, 30, 30], strict=True):
        assert 0.7 * most <= rest <= most
    pace.fine()
    assert pace.after(ApiAway("away")) <= 5.0


def test_it_rests_at_least_as_long_as_it_was_asked_to() -> None:
    pace = Pace(base_seconds=1.0)
    assert 40.0 <= pace.after(LimitReached("slow down", retry_after_seconds=40.0)) <= 48.0


def test_a_conflict_is_tried_again_soon_however_often() -> None:
    pace = Pace(base_seconds=5.0)
    assert all(0.5 <= pace.after(Conflict("changed")) <= 1.0 for _ in range(10))


def test_two_that_fail_together_do_not_come_back_together() -> None:
    first, second = Pace(base_seconds=5.0), Pace(base_seconds=5.0)
    assert [first.after(None) for _ in range(3)] != [second.after(None) for _ in range(3)]


@pytest.mark.parametrize(
    ("code", "status", "error", "kind"),
    [
        (401, {}, Unauthenticated, "unauthenticated"),
        (403, {}, PermissionDenied, "forbidden"),
        (404, {}, NotFound, "not_found"),
        (409, {"reason": "AlreadyExists"}, AlreadyExists, "already_exists"),
        (409, {"reason": "Conflict"}, Conflict, "conflict"),
        (410, {}, Expired, "expired"),
        (422, {"reason": "Invalid"}, InvalidInput, "invalid"),
        (429, {}, LimitReached, "limited"),
        (500, {}, ApiAway, "away"),
        (503, {}, ApiAway, "away"),
    ],
)
def test_an_answer_is_one_error_of_the_tree(
    code: int, status: dict[str, str], error: type[OnlineRLHFError], kind: str
) -> None:
    found = error_of(code, status, what="patch deployments/scale rollout")
    assert type(found) is error
    assert kind_of(found) == kind
    assert "patch deployments/scale rollout" in str(found)


def test_busy_servers_may_say_for_how_long() -> None:
    assert retry_after(error_of(429, {}, what="list pods", retry_after_seconds=7.0)) == 7.0
    assert retry_after(error_of(503, {}, what="list pods", retry_after_seconds=3.0)) == 3.0
    assert retry_after(error_of(409, {}, what="list pods")) is None


def test_a_servers_message_is_cut() -> None:
    assert len(str(error_of(422, {"message": "x" * 5_000}, what="create pods"))) < 400
