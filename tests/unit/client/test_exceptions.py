import grpc
import pytest

import onlinerlhf_client
from onlinerlhf.core import errors
from onlinerlhf.gateway import refusals
from onlinerlhf.runtime.statuses import status_of
from onlinerlhf_client.exceptions import from_number, from_status


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (errors.InvalidInput("why", reason="too_large"), "too_large"),
        (refusals.Duplicate("why"), "duplicate"),
        (errors.IdempotencyConflict("why"), "idempotency_conflict"),
        (refusals.NoConsent("why"), "no_consent"),
        (refusals.UserCap("why"), "user_cap"),
        (refusals.PoolFull("why"), "pool_full"),
        (errors.NotFound("why"), "not_found"),
        (errors.Unavailable("why"), "unavailable"),
    ],
)
def test_what_the_gateway_raises_reaches_the_caller_under_the_same_name(
    raised: errors.OnlineRLHFError, reason: str
) -> None:
    mirrored = from_status(*status_of(raised), str(raised))
    names = {kind.__name__ for kind in type(raised).__mro__}
    assert type(mirrored).__name__ in names
    assert (mirrored.reason, str(mirrored)) == (reason, "why")


def test_a_reason_that_is_not_known_falls_back_to_the_code() -> None:
    error = from_status(grpc.StatusCode.INVALID_ARGUMENT, "a_later_reason", "why")
    assert type(error) is onlinerlhf_client.InvalidInput
    assert error.reason == "a_later_reason"


def test_a_code_that_is_not_known_is_a_server_error() -> None:
    assert type(from_status(grpc.StatusCode.INTERNAL, "", "why")) is onlinerlhf_client.ServerError
    assert type(from_number(99, "", "why")) is onlinerlhf_client.ServerError


def test_a_code_carried_as_a_number_means_the_same() -> None:
    assert type(from_number(6, "duplicate", "why")) is onlinerlhf_client.AlreadyExists
    assert type(from_number(9, "no_consent", "why")) is onlinerlhf_client.ConsentMissing


def test_only_time_and_absence_are_worth_a_retry() -> None:
    retryable = {code.name for code in grpc.StatusCode if from_status(code, "", "why").retryable}
    assert retryable == {"UNAVAILABLE", "DEADLINE_EXCEEDED"}


def test_a_timeout_is_a_kind_of_absence() -> None:
    assert isinstance(from_status(grpc.StatusCode.DEADLINE_EXCEEDED, "", "why"), onlinerlhf_client.Unavailable)
