"""What the Kubernetes API answers when it does not do what was asked, as errors of the one tree.

Unavailable
├── Conflict     the object has changed since it was read (409)
├── Expired      a watch asked for changes that are forgotten (410)
└── ApiAway      no answer, or one that says "not now" (5xx)
"""

from collections.abc import Mapping
from typing import Any, Final

from onlinerlhf.core.errors import (
    AlreadyExists,
    InvalidInput,
    LimitReached,
    NotFound,
    OnlineRLHFError,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)

MAX_MESSAGE_CHARACTERS: Final = 300


class Conflict(Unavailable):
    """The object has changed since it was read; read it again."""


class Expired(Unavailable):
    """The changes asked for are forgotten; begin from what is there now."""


class ApiAway(Unavailable):
    """The API server cannot be reached, does not answer in time, or says that it cannot answer now."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


def error_of(
    code: int, status: Mapping[str, Any], *, what: str, retry_after_seconds: float | None = None
) -> OnlineRLHFError:
    """An answer's code and body (a Status object, where it is one) as an error; `what` names verb and resource."""
    said = " ".join(str(status.get("message", "")).split())[:MAX_MESSAGE_CHARACTERS]
    message = f"{what}: {said or code}"
    match code:
        case 401:
            return Unauthenticated(message)
        case 403:
            return PermissionDenied(f"{what} is not allowed: no Role of this account has it")
        case 404:
            return NotFound(message)
        case 409 if status.get("reason") == "AlreadyExists":
            return AlreadyExists(message)
        case 409:
            return Conflict(message)
        case 410:
            return Expired(message)
        case 429:
            return LimitReached(message, retry_after_seconds=retry_after_seconds)
    if code >= 500:
        return ApiAway(message, retry_after_seconds=retry_after_seconds)
    return InvalidInput(message, reason=str(status.get("reason", "invalid")))


def kind_of(error: OnlineRLHFError) -> str:
    """One word for metrics."""
    names = {
        Conflict: "conflict",
        Expired: "expired",
        LimitReached: "limited",
        PermissionDenied: "forbidden",
        Unauthenticated: "unauthenticated",
        NotFound: "not_found",
        AlreadyExists: "already_exists",
        InvalidInput: "invalid",
        Unavailable: "away",
    }
    return next((word for kind, word in names.items() if isinstance(error, kind)), "other")


def retry_after(error: BaseException) -> float | None:
    """For how long the API server asked to be left alone."""
    return error.retry_after_seconds if isinstance(error, ApiAway | LimitReached) else None
