"""Client of the onlinerlhf gateway: submit prompts, stream answers, follow samples.

`Client` is synchronous, `AsyncClient` asynchronous; their methods mirror each other. Every call has a deadline, is
retried with one idempotency key where that is safe, and raises the exceptions of `onlinerlhf_client.exceptions`.
"""

from onlinerlhf_client.aio import AsyncClient, AsyncTokenStream
from onlinerlhf_client.client import Client, TokenStream
from onlinerlhf_client.exceptions import (
    AlreadyExists,
    CallTimeout,
    ConsentMissing,
    IdempotencyConflict,
    InvalidInput,
    LimitReached,
    NotFound,
    OnlineRLHFError,
    ServerError,
    Unavailable,
)
from onlinerlhf_client.retries import Timeouts
from onlinerlhf_client.types import (
    Admission,
    Answer,
    Completion,
    FinishReason,
    Receipt,
    Sample,
    Submission,
    SubmitResult,
    Token,
    VersionSpan,
)

__all__ = [
    "Admission",
    "AlreadyExists",
    "Answer",
    "AsyncClient",
    "AsyncTokenStream",
    "CallTimeout",
    "Client",
    "Completion",
    "ConsentMissing",
    "FinishReason",
    "IdempotencyConflict",
    "InvalidInput",
    "LimitReached",
    "NotFound",
    "OnlineRLHFError",
    "Receipt",
    "Sample",
    "ServerError",
    "Submission",
    "SubmitResult",
    "Timeouts",
    "Token",
    "TokenStream",
    "Unavailable",
    "VersionSpan",
]
