"""The one table between core.errors and gRPC status codes, read in both directions.

The code says what a caller can do about it; the reason, a stable word in the trailing metadata, which error it was.
"""

import re
from typing import Final

from grpc import StatusCode

from onlinerlhf.core import errors

REASON_KEY: Final = "onlinerlhf-reason"
RETRY_AFTER_KEY: Final = "retry-after"
"""Seconds after which the same call may succeed, with up to three decimals."""

# The nearest entry of an error's base classes counts.
CODES: Final[dict[type[errors.OnlineRLHFError], StatusCode]] = {
    errors.InvalidInput: StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: StatusCode.PERMISSION_DENIED,
    errors.AlreadyExists: StatusCode.ALREADY_EXISTS,
    errors.IdempotencyConflict: StatusCode.FAILED_PRECONDITION,
    errors.ConsentMissing: StatusCode.FAILED_PRECONDITION,
    errors.NotFound: StatusCode.NOT_FOUND,
    errors.LimitReached: StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: StatusCode.UNAVAILABLE,
    errors.WeightsRefused: StatusCode.DATA_LOSS,
    errors.OnlineRLHFError: StatusCode.INTERNAL,
}

# What a code means where no reason came with it, be it from the library or from a proxy.
_BY_CODE: Final[dict[StatusCode, type[errors.OnlineRLHFError]]] = {
    StatusCode.INVALID_ARGUMENT: errors.InvalidInput,
    StatusCode.OUT_OF_RANGE: errors.InvalidInput,
    StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    StatusCode.NOT_FOUND: errors.NotFound,
    StatusCode.RESOURCE_EXHAUSTED: errors.LimitReached,
    StatusCode.UNAVAILABLE: errors.Unavailable,
    StatusCode.CANCELLED: errors.Unavailable,
    StatusCode.ABORTED: errors.Unavailable,
    StatusCode.DEADLINE_EXCEEDED: errors.WaitTimeout,
    StatusCode.DATA_LOSS: errors.WeightsRefused,
}


def status_of(error: errors.OnlineRLHFError) -> tuple[StatusCode, str]:
    """Code and reason that a servicer answers with.

    The reason is the error's own `reason`, where its class has one, or the class in snake case: wait_timeout, …
    """
    reason = getattr(error, "reason", None)
    return code_of(type(error)), reason if isinstance(reason, str) else _snake(type(error))


def trailing_metadata(error: errors.OnlineRLHFError) -> tuple[tuple[str, str], ...]:
    """What goes with a refusal beside code and message."""
    reason = (REASON_KEY, status_of(error)[1])
    seconds = getattr(error, "retry_after_seconds", None)
    return (reason,) if seconds is None else (reason, (RETRY_AFTER_KEY, f"{seconds:.3f}"))


def error_of(code: StatusCode, reason: str, message: str) -> errors.OnlineRLHFError:
    """The error behind a status, as a caller raises it."""
    kind = _BY_REASON.get(reason)
    if kind is None or code_of(kind) is not code:
        kind = _BY_CODE.get(code, errors.OnlineRLHFError)
    if kind is errors.MalformedRecord:
        return errors.MalformedRecord(message)
    if issubclass(kind, errors.InvalidInput):
        return errors.InvalidInput(message, reason=reason or "invalid")
    if issubclass(kind, errors.ConsentMissing):
        return errors.ConsentMissing(message, reason=reason or "no_consent")
    return kind(message)


def code_of(kind: type[errors.OnlineRLHFError]) -> StatusCode:
    """The status code of an error class."""
    return next(CODES[base] for base in kind.__mro__ if base in CODES)


def _snake(kind: type[Exception]) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


_BY_REASON: Final[dict[str, type[errors.OnlineRLHFError]]] = {
    **{_snake(kind): kind for kind in vars(errors).values() if isinstance(kind, type)},
    "malformed": errors.MalformedRecord,
    **dict.fromkeys(errors.CONSENT_REASONS, errors.ConsentMissing),
}
