"""What a prompt to answer may come with, said once for both clients."""

from collections.abc import Sequence
from typing import Required, TypedDict

from onlinerlhf_client.types import Consent, Message


class AnswerOptions(TypedDict, total=False):
    """Keyword arguments of `generate` and `answer`."""

    user_id: Required[str]
    """The user within the key's organisation."""
    messages: Sequence[Message]
    """A conversation instead of a text; the last message is the user's."""
    consent: Consent | None
    """Without it the prompt is answered and not learned from."""
    max_tokens: int | None
    """None: the gateway's default."""
    temperature: float | None
    """None: 1."""
    top_p: float | None
    """None: 1."""
    seed: int | None
    stop: Sequence[str]
    """The answer ends before the first of these, at most 4 of them."""
    use_case: str
    """One of the ten, where the caller knows it."""
    idempotency_key: str | None
    """None: a fresh one."""
