"""What the train path is offered, and what it says. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from onlinerlhf.core.errors import CONSENT_REASONS
from onlinerlhf.gateway.access.callers import Caller
from onlinerlhf.gateway.admission.consent import ConsentClaim


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A request whose form is good, offered as training data."""

    caller: Caller
    sample_id: str
    turns: tuple[tuple[str, str], ...]
    """(role, text); a plain prompt is one turn of the role user."""
    token_ids: tuple[int, ...]
    """The rendered prompt."""
    claim: ConsentClaim | None
    is_raw: bool = False
    """Tokens, or text to go on from: no prompt of the kind that is learned from."""
    use_case: str = ""
    """The client's word."""
    traceparent: str = ""


class Verdict(StrEnum):
    """What became of an offer. Counted; told to clients only where it is about their own proof or everybody's load."""

    ADMITTED = "admitted"
    HELD_OUT = "held_out"
    """Kept for validation or testing."""
    DUPLICATE = "duplicate"
    USER_CAP = "user_cap"
    PII = "pii"
    """Personal data or secrets, under the policy drop."""
    TOO_MANY_TOKENS = "too_many_tokens"
    RAW_PROMPT = "raw_prompt"
    CONTAMINATED = "contaminated"
    """An evaluation prompt."""
    POOL_FULL = "pool_full"
    NO_CONSENT = "no_consent"
    PRODUCTION_KEY = "production_key"
    UNKNOWN_NOTICE = "unknown_notice"
    NOTICE_EXPIRED = "notice_expired"
    NOTICE_IN_FUTURE = "notice_in_future"
    WITHDRAWN = "withdrawn"
    ERASED = "erased"
    SCREEN_FAILED = "screen_failed"
    """A screen erred or took too long: not learned from."""
    UNAVAILABLE = "unavailable"
    """Redis did not answer in time."""
    OVERLOADED = "overloaded"
    """The queue of answered prompts was full."""

    @property
    def is_about_consent(self) -> bool:
        """Whether another proof of consent would have changed it."""
        return self.value in CONSENT_REASONS
