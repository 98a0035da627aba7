from typing import Any

import grpc
import pytest

import onlinerlhf_client
from onlinerlhf.core import errors
from onlinerlhf.runtime.statuses import status_of, trailing_metadata
from onlinerlhf_client.exceptions import from_number, from_rpc, from_status


class Failed(grpc.RpcError):
    """A failed call as gRPC hands it out."""

    def __init__(self, code: grpc.StatusCode, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        self._code = code
        self._metadata = metadata

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "why"

    def trailing_metadata(self) -> Any:
        return self._metadata


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (errors.InvalidInput("why", reason="too_large"), "too_large"),
        (errors.Unauthenticated("why"), "unauthenticated"),
        (errors.PermissionDenied("why"), "permission_denied"),
        (errors.AlreadyExists("why"), "already_exists"),
        (errors.IdempotencyConflict("why"), "idempotency_conflict"),
        *((errors.ConsentMissing("why", reason=reason), reason) for reason in errors.CONSENT_REASONS),
        (errors.LimitReached("why"), "limit_reached"),
        (errors.NotFound("why"), "not_found"),
        (errors.Unavailable("why"), "unavailable"),
    ],
)
def test_what_the_gateway_raises_reaches_the_caller_under_the_same_name(
    raised: errors.OnlineRLHFError, reason: str
) -> None:
    mirrored = from_rpc(Failed(status_of(raised)[0], trailing_metadata(raised)))
    assert type(mirrored).__name__ == type(raised).__name__
    assert (mirrored.reason, str(mirrored), mirrored.retry_after_seconds) == (reason, "why", None)


def test_a_limit_that_says_when_to_come_back_is_worth_a_retry() -> None:
    raised = errors.LimitReached("why", retry_after_seconds=1.25)
    limit = from_rpc(Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, trailing_metadata(raised)))
    assert isinstance(limit, onlinerlhf_client.LimitReached)
    assert limit.retry_after_seconds == 1.25
    assert limit.retryable


@pytest.mark.parametrize("told", ["", "-1", "nan", "inf", "soon", "Wed, 21 Oct 2026 07:28:00 GMT", b"\xff"])
def test_what_is_no_length_of_time_is_not_waited_for(told: str | bytes) -> None:
    limit = from_rpc(Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, (("retry-after", told),)))
    assert limit.retry_after_seconds is None
    assert not limit.retryable


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
