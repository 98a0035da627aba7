"""Client of the onlinerlhf gateway: submit prompts, stream answers, judge them, withdraw consent.

`Client` is synchronous, `AsyncClient` asynchronous; their methods mirror each other. Every call has a deadline, is
retried with one idempotency key where that is safe, and raises the exceptions of `onlinerlhf_client.exceptions`.
"""

from onlinerlhf_client.aio import AsyncClient
from onlinerlhf_client.aio_streams import AsyncTokenStream
from onlinerlhf_client.channels import Tls
from onlinerlhf_client.client import Client
from onlinerlhf_client.exceptions import (
    AlreadyExists,
    CallTimeout,
    ConsentMissing,
    IdempotencyConflict,
    InvalidInput,
    LimitReached,
    NotFound,
    OnlineRLHFError,
    PermissionDenied,
    ServerError,
    Unauthenticated,
    Unavailable,
)
from onlinerlhf_client.options import AnswerOptions
from onlinerlhf_client.retries import Timeouts
from onlinerlhf_client.streams import TokenStream
from onlinerlhf_client.types import (
    Answer,
    Completion,
    Consent,
    FeedbackReceipt,
    FinishReason,
    Message,
    Receipt,
    Role,
    Sample,
    Submission,
    SubmitResult,
    Token,
    VersionSpan,
)

__all__ = [
    "AlreadyExists",
    "Answer",
    "AnswerOptions",
    "AsyncClient",
    "AsyncTokenStream",
    "CallTimeout",
    "Client",
    "Completion",
    "Consent",
    "ConsentMissing",
    "FeedbackReceipt",
    "FinishReason",
    "IdempotencyConflict",
    "InvalidInput",
    "LimitReached",
    "Message",
    "NotFound",
    "OnlineRLHFError",
    "PermissionDenied",
    "Receipt",
    "Role",
    "Sample",
    "ServerError",
    "Submission",
    "SubmitResult",
    "Timeouts",
    "Tls",
    "Token",
    "TokenStream",
    "Unauthenticated",
    "Unavailable",
    "VersionSpan",
]
