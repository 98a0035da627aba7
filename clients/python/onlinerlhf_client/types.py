"""What goes in and comes out: frozen values, no protobuf."""

import uuid
from dataclasses import dataclass, field
from enum import StrEnum

from onlinerlhf_client.exceptions import OnlineRLHFError


class FinishReason(StrEnum):
    """How an answer ended."""

    EOS = "eos"
    """The policy ended it."""
    LENGTH = "length"
    """Cut at max_tokens."""


def new_idempotency_key() -> str:
    """A fresh key; a retry must use the same one."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A prompt was admitted as training data."""

    sample_id: str
    """For `get_sample`."""
    replayed: bool
    """An earlier call with the same idempotency key made this sample."""
    num_prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A prompt offered as training data."""

    text: str | bytes
    user_id: str
    idempotency_key: str = field(default_factory=new_idempotency_key)
    training_consent: bool = True


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What became of the training offer of an answered prompt: one of the two is set."""

    receipt: Receipt | None
    not_admitted: OnlineRLHFError | None
    """Answered, and not learned from, for this reason. Not raised."""


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
    completion: Completion
    admission: Admission

    @property
    def finish_reason(self) -> FinishReason:
        """How it ended."""
        return self.completion.finish_reason

    @property
    def policy_version(self) -> int:
        """The newest policy version that sampled any of it."""
        return self.completion.policy_version

    @property
    def receipt(self) -> Receipt | None:
        """Set where the prompt was admitted as training data."""
        return self.admission.receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Where a sample is now."""

    sample_id: str
    state: str
    """pool, prompts, rollouts, scored, trained or dropped."""
    drop_reason: str | None
    trained_version: int | None
