"""What goes in and comes out: frozen values, no protobuf."""

import time
import uuid
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from onlinerlhf_client.exceptions import OnlineRLHFError


class Role(StrEnum):
    """Who says a turn of a conversation."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class FinishReason(StrEnum):
    """How an answer ended."""

    EOS = "eos"
    """The policy ended it."""
    LENGTH = "length"
    """Cut at max_tokens."""
    STOP = "stop"
    """Cut at a stop string."""


def new_idempotency_key() -> str:
    """A fresh key; a retry must use the same one."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role | str
    """system, user or assistant."""
    text: str | bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """The owner of a prompt allows learning from it."""

    notice_version: str
    """Of the notice that they were shown; one that the gateway knows."""
    shown_at_seconds: float
    """When. Seconds since 1970-01-01 UTC."""

    @classmethod
    def shown_now(cls, notice_version: str) -> Self:
        """They read it just now."""
        return cls(notice_version=notice_version, shown_at_seconds=time.time())


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A prompt was taken in. Whether it is learned from is not told."""

    sample_id: str
    """For feedback and `get_sample`."""
    replayed: bool
    """An earlier call with the same idempotency key made this sample."""
    num_prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A prompt offered as training data: a text, or the messages of a conversation."""

    text: str | bytes | None = None
    messages: tuple[Message, ...] = ()
    """The last one is the user's."""
    user_id: str
    consent: Consent | None
    """Without it the gateway refuses the prompt."""
    use_case: str = ""
    """One of the ten, where the caller knows it."""
    idempotency_key: str = field(default_factory=new_idempotency_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitResult:
    """What became of one submission: a receipt, or the error that `submit` would have raised."""

    submission: Submission
    receipt: Receipt | None
    error: OnlineRLHFError | None

    def unwrap(self) -> Receipt:
        """The receipt, or raises the error."""
        if self.error is not None:
            raise self.error
        if self.receipt is None:
            raise OnlineRLHFError("neither receipt nor error")
        return self.receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSpan:
    """`num_tokens` consecutive tokens sampled by one policy version."""

    version: int
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """The next piece of an answer; its text may be empty while a character is incomplete."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    """One a token, nats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The end of an answer."""

    finish_reason: FinishReason
    version_spans: tuple[VersionSpan, ...]
    num_prompt_tokens: int
    num_response_tokens: int

    @property
    def policy_version(self) -> int:
        """The newest policy version that sampled any of the answer."""
        return max((span.version for span in self.version_spans), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """One a token, nats."""
    completion: Completion
    receipt: Receipt

    @property
    def sample_id(self) -> str:
        """For feedback."""
        return self.receipt.sample_id

    @property
    def finish_reason(self) -> FinishReason:
        """How it ended."""
        return self.completion.finish_reason

    @property
    def policy_version(self) -> int:
        """The newest policy version that sampled any of it."""
        return self.completion.policy_version


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What the gateway tells about a sample."""

    sample_id: str
    state: str
    """received; with a key of scope admin also pool, prompts, rollouts, scored, trained or dropped."""
    drop_reason: str | None
    trained_version: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackReceipt:
    """A judgement was stored."""

    feedback_id: str
    replayed: bool
    """An earlier call with the same idempotency key stored it."""
