"""What a call can raise: the mirror of the platform's own error tree, told apart by status code and reason.

OnlineRLHFError
├── InvalidInput          INVALID_ARGUMENT      what was sent can never be accepted
├── Unauthenticated       UNAUTHENTICATED       no key, an unknown one or a revoked one
├── PermissionDenied      PERMISSION_DENIED     the key lacks the scope
├── AlreadyExists         ALREADY_EXISTS        a duplicate
├── IdempotencyConflict   FAILED_PRECONDITION   the idempotency key was used with another request
├── ConsentMissing        FAILED_PRECONDITION   no_consent, production_key, notice_expired, …
├── NotFound              NOT_FOUND
├── LimitReached          RESOURCE_EXHAUSTED    a cap or a bound; later, where it says when, or never
├── Unavailable           UNAVAILABLE           try again (the client already did)
│   └── CallTimeout       DEADLINE_EXCEEDED     no answer in time
└── ServerError           anything else
"""

import math
from typing import cast

import grpc

REASON_METADATA_KEY = "onlinerlhf-reason"
RETRY_AFTER_METADATA_KEY = "retry-after"
RETRYABLE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


class OnlineRLHFError(Exception):
    """Base of all. `reason` is a stable machine-readable word; the message never repeats the prompt."""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str = "",
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds

    @property
    def retryable(self) -> bool:
        """Whether the same call, with the same idempotency key, may succeed later."""
        return self.code in RETRYABLE


class InvalidInput(OnlineRLHFError):
    """What was sent can never be accepted."""


class Unauthenticated(OnlineRLHFError):
    """No API key, or one that does not count."""


class PermissionDenied(OnlineRLHFError):
    """The API key lacks the scope that this needs."""


class AlreadyExists(OnlineRLHFError):
    """The same thing was accepted before."""


class IdempotencyConflict(OnlineRLHFError):
    """The idempotency key was used with another request."""


class ConsentMissing(OnlineRLHFError):
    """The owner did not allow learning from this prompt; `reason` says what the proof lacks."""


class NotFound(OnlineRLHFError):
    """No such thing."""


class LimitReached(OnlineRLHFError):
    """A cap or a bound is reached; `retry_after_seconds` is set where waiting helps."""

    @property
    def retryable(self) -> bool:
        """Only where the gateway says how long to wait."""
        return self.retry_after_seconds is not None


class Unavailable(OnlineRLHFError):
    """The platform, or something behind it, is away."""


class CallTimeout(Unavailable):
    """No answer within the deadline."""


class ServerError(OnlineRLHFError):
    """The platform failed in a way it does not name."""


_CONSENT_REASONS = (
    "no_consent",
    "production_key",
    "unknown_notice",
    "notice_expired",
    "notice_in_future",
    "withdrawn",
    "erased",
)
# FAILED_PRECONDITION means nothing without its reason; every other code says it all.
_BY_PRECONDITION: dict[str, type[OnlineRLHFError]] = {
    "idempotency_conflict": IdempotencyConflict,
    **dict.fromkeys(_CONSENT_REASONS, ConsentMissing),
}
_BY_CODE: dict[grpc.StatusCode, type[OnlineRLHFError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.OUT_OF_RANGE: InvalidInput,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitReached,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: CallTimeout,
}
_CODE_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def from_status(
    code: grpc.StatusCode, reason: str, message: str, *, retry_after_seconds: float | None = None
) -> OnlineRLHFError:
    """The exception for a status code and the platform's reason."""
    kind = _BY_CODE.get(code, ServerError)
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        kind = _BY_PRECONDITION.get(reason, ServerError)
    return kind(message, code=code, reason=reason, retry_after_seconds=retry_after_seconds)


def from_number(code: int, reason: str, message: str, *, retry_after_seconds: float | None = None) -> OnlineRLHFError:
    """The same for a code carried as a number inside a message."""
    known = _CODE_BY_NUMBER.get(code, grpc.StatusCode.UNKNOWN)
    return from_status(known, reason, message, retry_after_seconds=retry_after_seconds)


def from_rpc(error: grpc.RpcError) -> OnlineRLHFError:
    """The exception for a failed call, synchronous or not."""
    # Every RpcError that a call raises is a Call too; the base class just does not say so.
    failed = cast(grpc.Call, error)
    told = {
        key: value.decode("ascii", "replace") if isinstance(value, bytes) else value
        for key, value in failed.trailing_metadata() or ()
    }
    return from_status(
        failed.code(),
        told.get(REASON_METADATA_KEY, ""),
        failed.details() or failed.code().name.lower(),
        retry_after_seconds=_seconds(told.get(RETRY_AFTER_METADATA_KEY, "")),
    )


def _seconds(value: str) -> float | None:
    """None for what is no length of time: what a proxy made up must not break the client."""
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
