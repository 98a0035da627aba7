"""What a call can raise: the mirror of the platform's own error tree, told apart by status code and reason.

OnlineRLHFError
├── InvalidInput          INVALID_ARGUMENT      what was sent can never be accepted
├── AlreadyExists         ALREADY_EXISTS        a duplicate
├── IdempotencyConflict   FAILED_PRECONDITION   the key was used with another text
├── ConsentMissing        FAILED_PRECONDITION   no_consent
├── NotFound              NOT_FOUND
├── LimitReached          RESOURCE_EXHAUSTED    a cap or a bound; later or never
├── Unavailable           UNAVAILABLE           try again (the client already did)
│   └── CallTimeout       DEADLINE_EXCEEDED     no answer in time
└── ServerError           anything else
"""

from typing import cast

import grpc

REASON_METADATA_KEY = "onlinerlhf-reason"
RETRYABLE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


class OnlineRLHFError(Exception):
    """Base of all. `reason` is a stable machine-readable word; the message never repeats the prompt."""

    def __init__(self, message: str, *, code: grpc.StatusCode = grpc.StatusCode.UNKNOWN, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason

    @property
    def retryable(self) -> bool:
        """Whether the same call, with the same idempotency key, may succeed later."""
        return self.code in RETRYABLE


class InvalidInput(OnlineRLHFError):
    """What was sent can never be accepted."""


class AlreadyExists(OnlineRLHFError):
    """The same prompt was admitted before."""


class IdempotencyConflict(OnlineRLHFError):
    """The idempotency key was used with another text."""


class ConsentMissing(OnlineRLHFError):
    """The owner did not allow learning from this prompt."""


class NotFound(OnlineRLHFError):
    """No such thing."""


class LimitReached(OnlineRLHFError):
    """A cap or a bound is reached."""


class Unavailable(OnlineRLHFError):
    """The platform, or something behind it, is away."""


class CallTimeout(Unavailable):
    """No answer within the deadline."""


class ServerError(OnlineRLHFError):
    """The platform failed in a way it does not name."""


# (code, reason) first; a reason that is not listed falls back to its code.
_BY_REASON: dict[tuple[grpc.StatusCode, str], type[OnlineRLHFError]] = {
    (grpc.StatusCode.FAILED_PRECONDITION, "no_consent"): ConsentMissing,
    (grpc.StatusCode.FAILED_PRECONDITION, "idempotency_conflict"): IdempotencyConflict,
}
_BY_CODE: dict[grpc.StatusCode, type[OnlineRLHFError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitReached,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: CallTimeout,
}
_CODE_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def from_status(code: grpc.StatusCode, reason: str, message: str) -> OnlineRLHFError:
    """The exception for a status code and the platform's reason."""
    kind = _BY_REASON.get((code, reason)) or _BY_CODE.get(code, ServerError)
    return kind(message, code=code, reason=reason)


def from_number(code: int, reason: str, message: str) -> OnlineRLHFError:
    """The same for a code carried as a number inside a message."""
    return from_status(_CODE_BY_NUMBER.get(code, grpc.StatusCode.UNKNOWN), reason, message)


def from_rpc(error: grpc.RpcError) -> OnlineRLHFError:
    """The exception for a failed call, synchronous or not."""
    # Every RpcError that a call raises is a Call too; the base class just does not say so.
    failed = cast(grpc.Call, error)
    reason = ""
    for key, value in failed.trailing_metadata() or ():
        if key == REASON_METADATA_KEY:
            reason = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    return from_status(failed.code(), reason, failed.details() or failed.code().name.lower())
