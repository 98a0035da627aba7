"""What a client asks, once decoded: the same value whether it came by gRPC or HTTP."""

from dataclasses import dataclass

from onlinerlhf.gateway.admission.consent import ConsentClaim
from onlinerlhf.gateway.requests.lane import AnswerSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A prompt in one of three forms, and how it is to be answered."""

    user_id: str
    turns: tuple[tuple[str, bytes], ...] = ()
    """(role, UTF-8 text) of a conversation; a plain prompt is one turn of the role user."""
    raw_text: bytes | None = None
    """Text to go on from, without the chat template. Never learned from."""
    raw_token_ids: tuple[int, ...] | None = None
    """Tokens to go on from. Never learned from."""
    spec: AnswerSpec
    num_answers: int = 1
    idempotency_key: str = ""
    """Empty: asked once."""
    consent: ConsentClaim | None = None
    """Absent: answered, not learned from."""
    use_case: str = ""
    traceparent: str = ""

    @property
    def num_bytes(self) -> int:
        """Of all texts as sent."""
        return sum(len(text) for _, text in self.turns) + len(self.raw_text or b"") + 4 * len(self.raw_token_ids or ())

    @property
    def body(self) -> bytes:
        """What a retry with the same idempotency key must repeat: the prompt, whatever is to be done with it."""
        if self.raw_token_ids is not None:
            return b"tokens:" + ",".join(map(str, self.raw_token_ids)).encode()
        if self.raw_text is not None:
            return b"raw:" + self.raw_text
        return b"".join(b"%b:%d:%b" % (role.encode(), len(text), text) for role, text in self.turns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The receipt: the same whatever becomes of the prompt."""

    sample_id: str
    replayed: bool
    num_prompt_tokens: int
