"""What a prompt must pass, in order. The one seam for further screens.

A screen is a pure function: it gets a candidate and returns it, perhaps with what it has learnt (the decoded text, the
tokens), or raises a typed error with a stable `reason`. Whoever adds a check (authentication, quota, proof of consent,
personal data, near-duplicates) adds a screen to one of the two tuples in `build_screens`, and nothing else changes.
Messages say what and why and never repeat the text.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Protocol

from onlinerlhf.core.errors import InvalidInput
from onlinerlhf.gateway.normalise import is_blank
from onlinerlhf.gateway.refusals import NoConsent

_NAME = re.compile(r"[\x20-\x7e]{1,128}")
# Category Cc (C0, DEL, C1) without \n and \t.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A prompt on its way through the screens."""

    user_id: str
    idempotency_key: str
    training_consent: bool
    raw: bytes
    """As the client sent it."""
    text: str = ""
    """Known after `utf8`."""
    token_ids: tuple[int, ...] = ()
    """Known after `num_tokens`."""


Screen = Callable[[Candidate], Candidate]


class Encoder(Protocol):
    """What the token screen needs of a tokenizer."""

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of the rendered prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Screens:
    """Two lists in order: every prompt passes the first, one that is to be learned from the second as well."""

    to_answer: tuple[Screen, ...]
    to_learn: tuple[Screen, ...]


def build_screens(*, encoder: Encoder, max_bytes: int, max_tokens: int) -> Screens:
    """All screens, cheap before dear."""
    return Screens(
        to_answer=(
            user_name,
            num_bytes_at_most(max_bytes),
            utf8,
            no_control_characters,
            not_empty,
            num_tokens_at_most(max_tokens, encoder),
        ),
        to_learn=(
            consent,
            idempotency_key,
        ),
    )


def pass_all(candidate: Candidate, screens: tuple[Screen, ...]) -> Candidate:
    """The candidate after all screens; the first that objects raises."""
    return reduce(lambda passed, screen: screen(passed), screens, candidate)


def user_name(candidate: Candidate) -> Candidate:
    """user_id is 1 to 128 printable ASCII characters."""
    if _NAME.fullmatch(candidate.user_id) is None:
        raise InvalidInput("user_id must be 1 to 128 printable ASCII characters", reason="bad_user_id")
    return candidate


def utf8(candidate: Candidate) -> Candidate:
    """The bytes are UTF-8, so there are no lone surrogates either. Windows line ends become \\n."""
    try:
        text = candidate.raw.decode("utf-8")
    except UnicodeDecodeError as error:
        # Raised anew without its cause, which holds the bytes.
        message = f"the prompt is not UTF-8: byte {error.start} cannot be decoded"
        raise InvalidInput(message, reason="not_utf8") from None
    return replace(candidate, text=text.replace("\r\n", "\n"))


def no_control_characters(candidate: Candidate) -> Candidate:
    """Of the control characters only line feed and tab are text."""
    found = _CONTROL.search(candidate.text)
    if found is not None:
        message = f"the prompt holds control character U+{ord(found.group()):04X} at character {found.start()}"
        raise InvalidInput(message, reason="control_character")
    return candidate


def not_empty(candidate: Candidate) -> Candidate:
    """Something is left after normalisation."""
    if is_blank(candidate.text):
        raise InvalidInput("the prompt is empty, or only whitespace and invisible characters", reason="empty")
    return candidate


def num_bytes_at_most(max_bytes: int) -> Screen:
    """A bound on the size as sent."""

    def num_bytes(candidate: Candidate) -> Candidate:
        if len(candidate.raw) > max_bytes:
            message = f"the prompt has {len(candidate.raw)} bytes; at most {max_bytes} are taken"
            raise InvalidInput(message, reason="too_large")
        return candidate

    return num_bytes


def num_tokens_at_most(max_tokens: int, encoder: Encoder) -> Screen:
    """A bound on the rendered prompt, chat template included."""

    def num_tokens(candidate: Candidate) -> Candidate:
        token_ids = tuple(encoder.encode_prompt(candidate.text))
        if len(token_ids) > max_tokens:
            message = f"the prompt has {len(token_ids)} tokens; at most {max_tokens} are taken"
            raise InvalidInput(message, reason="too_many_tokens")
        return replace(candidate, token_ids=token_ids)

    return num_tokens


def consent(candidate: Candidate) -> Candidate:
    """The owner allows learning from it."""
    if not candidate.training_consent:
        raise NoConsent("training_consent is false, so the prompt is not taken as training data")
    return candidate


def idempotency_key(candidate: Candidate) -> Candidate:
    """The key is 1 to 128 printable ASCII characters."""
    if _NAME.fullmatch(candidate.idempotency_key) is None:
        message = "idempotency_key must be 1 to 128 printable ASCII characters"
        raise InvalidInput(message, reason="bad_idempotency_key")
    return candidate
