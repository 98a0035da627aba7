"""The one exception tree. `runtime.serving` maps it to gRPC codes; clients map back.

OnlineRLHFError
├── InvalidInput             what was sent can never be accepted          INVALID_ARGUMENT
│   └── MalformedRecord      a stream record or a wire message is broken  INVALID_ARGUMENT
├── Unauthenticated          no key, an unknown key or a revoked one      UNAUTHENTICATED
├── PermissionDenied         the key lacks the scope                      PERMISSION_DENIED
├── AlreadyExists            a duplicate                                  ALREADY_EXISTS
├── IdempotencyConflict      the key was used with another request        FAILED_PRECONDITION
├── ConsentMissing           no consent to learn from it                  FAILED_PRECONDITION
├── NotFound                                                              NOT_FOUND
├── LimitReached             a cap or a bound; later or never             RESOURCE_EXHAUSTED
├── Unavailable              a peer is away; try again                    UNAVAILABLE
│   ├── WaitTimeout          a bounded wait ran out                       UNAVAILABLE
│   ├── RedisAway            keys and limits cannot be looked up (gateway) UNAVAILABLE
│   └── ApiAway, Conflict, Expired   the Kubernetes API (scaler)          UNAVAILABLE
├── WeightsRefused           an update failed; the old version serves     DATA_LOSS
│   ├── ChecksumMismatch
│   ├── BaseMissing          a delta whose parent is not applied
│   └── NonFiniteWeights
├── CheckpointError          could not be written or read                 INTERNAL
├── NonFiniteLoss            a training step produced NaN or infinity     INTERNAL
├── ScreenFailed             nobody knows what is in a text (gateway)     -
├── DataError                a row of a training file cannot be used      -
└── StartupError             a service cannot start; one line says why    -
    ├── LeaseLost            another replica leads (scaler)               -
    └── ConfigError
"""


class OnlineRLHFError(Exception):
    """Base of all errors this project raises on purpose. Messages never hold prompt text or secrets."""


class InvalidInput(OnlineRLHFError):
    """What was sent can never be accepted; `reason` is a stable machine-readable word."""

    def __init__(self, message: str, *, reason: str = "invalid") -> None:
        super().__init__(message)
        self.reason = reason


class MalformedRecord(InvalidInput):
    """A stream record or wire message cannot be decoded or contradicts itself."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="malformed")


class Unauthenticated(OnlineRLHFError):
    """No API key, a malformed or unknown one, or one that was revoked. Which of them is not told."""


class PermissionDenied(OnlineRLHFError):
    """The API key is good and lacks the scope that this needs."""


class AlreadyExists(OnlineRLHFError):
    """The same thing was accepted before."""


class IdempotencyConflict(OnlineRLHFError):
    """An idempotency key came again with a different request."""


CONSENT_REASONS = (
    "no_consent",
    "production_key",
    "unknown_notice",
    "notice_expired",
    "notice_in_future",
    "withdrawn",
    "erased",
)
"""What a proof of consent can lack."""


class ConsentMissing(OnlineRLHFError):
    """The owner did not allow learning from this; `reason` says what the proof lacks."""

    def __init__(self, message: str, *, reason: str = "no_consent") -> None:
        super().__init__(message)
        self.reason = reason


class NotFound(OnlineRLHFError):
    """No such thing."""


class LimitReached(OnlineRLHFError):
    """A cap or bound is reached; where waiting helps, `retry_after_seconds` says how long."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(OnlineRLHFError):
    """Something needed is away; the same call may succeed later."""


class WaitTimeout(Unavailable):
    """A bounded wait ran out; the message says what it waited for and how long."""


class WeightsRefused(OnlineRLHFError):
    """A weight update was not applied; the old version keeps serving under its old label."""


class ChecksumMismatch(WeightsRefused):
    """Bytes do not match the manifest."""


class BaseMissing(WeightsRefused):
    """A delta's parent version is not the one applied."""


class NonFiniteWeights(WeightsRefused):
    """A tensor holds NaN or infinity."""


class CheckpointError(OnlineRLHFError):
    """A checkpoint could not be written or read."""


class NonFiniteLoss(OnlineRLHFError):
    """A training step produced NaN or infinity; the step was not applied."""


class DataError(OnlineRLHFError):
    """A training file, or a row of it, cannot be used; the message names file, row and field."""


class StartupError(OnlineRLHFError):
    """A service cannot start."""


class ConfigError(StartupError):
    """A setting is unknown, missing or out of range; the message names it."""
