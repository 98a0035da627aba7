"""The first screen: is this a question at all? Size, encoding, names, numbers. Pure, and before anything else.

Messages say what and why and never repeat the text.
"""

import math
import re
from dataclasses import dataclass

from onlinerlhf.core.errors import InvalidInput
from onlinerlhf.gateway.admission.normalise import is_blank
from onlinerlhf.gateway.requests.lane import AnswerSpec
from onlinerlhf.gateway.requests.questions import Question

_NAME = re.compile(r"[\x20-\x7e]{1,128}")
# Category Cc (C0, DEL, C1) without \n and \t.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

ROLES = ("system", "user", "assistant")
MAX_STOPS = 4
MAX_STOP_CHARACTERS = 64
MAX_TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FormLimits:
    """What a question may ask for."""

    max_prompt_bytes: int
    max_turns: int
    max_answers: int
    max_response_tokens: int


def check(question: Question, limits: FormLimits) -> tuple[tuple[str, str], ...]:
    """The decoded turns; raw text is one turn of the role user. Raises InvalidInput with the first thing wrong."""
    name(question.user_id, what="user_id")
    if question.idempotency_key:
        name(question.idempotency_key, what="idempotency_key")
    if question.num_bytes > limits.max_prompt_bytes:
        message = f"the prompt has {question.num_bytes} bytes; at most {limits.max_prompt_bytes} are taken"
        raise InvalidInput(message, reason="too_large")
    turns = _turns(question, limits)
    spec(question.spec, limits)
    if not 1 <= question.num_answers <= limits.max_answers:
        message = f"{question.num_answers} answers asked for; from 1 to {limits.max_answers} can be"
        raise InvalidInput(message, reason="bad_num_answers")
    return turns


def name(value: str, *, what: str) -> None:
    """A name that a client chose: 1 to 128 printable ASCII characters."""
    if _NAME.fullmatch(value) is None:
        raise InvalidInput(f"{what} must be 1 to 128 printable ASCII characters", reason=f"bad_{what}")


def text(raw: bytes, *, what: str = "prompt") -> str:
    """The bytes are UTF-8, so there are no lone surrogates either, and of the control characters hold only line feed
    and tab; Windows line ends become \\n."""
    try:
        decoded = raw.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        # Raised anew without its cause, which holds the bytes.
        message = f"the {what} is not UTF-8: byte {error.start} cannot be decoded"
        raise InvalidInput(message, reason="not_utf8") from None
    found = _CONTROL.search(decoded)
    if found is not None:
        message = f"the {what} holds control character U+{ord(found.group()):04X} at character {found.start()}"
        raise InvalidInput(message, reason="control_character")
    return decoded


def spec(asked: AnswerSpec, limits: FormLimits) -> None:
    """The numbers of an answer."""
    if not 1 <= asked.max_tokens <= limits.max_response_tokens:
        message = f"max_tokens is {asked.max_tokens}; from 1 to {limits.max_response_tokens} can be asked for"
        raise InvalidInput(message, reason="bad_max_tokens")
    if not (math.isfinite(asked.temperature) and 0.0 <= asked.temperature <= 2.0):
        raise InvalidInput(f"temperature is {asked.temperature}; it must be from 0 to 2", reason="bad_temperature")
    if not (math.isfinite(asked.top_p) and 0.0 < asked.top_p <= 1.0):
        raise InvalidInput(f"top_p is {asked.top_p}; it must be above 0 and at most 1", reason="bad_top_p")
    if len(asked.stop) > MAX_STOPS or not all(0 < len(stop) <= MAX_STOP_CHARACTERS for stop in asked.stop):
        message = f"stop takes up to {MAX_STOPS} strings of 1 to {MAX_STOP_CHARACTERS} characters"
        raise InvalidInput(message, reason="bad_stop")
    if not 0 <= asked.num_top_logprobs <= MAX_TOP_LOGPROBS:
        raise InvalidInput(f"from 0 to {MAX_TOP_LOGPROBS} top logprobs can be asked for", reason="bad_logprobs")
    if asked.seed is not None and not 0 <= asked.seed < 2**63:
        raise InvalidInput("seed must be from 0 to 2**63 - 1", reason="bad_seed")


def _turns(question: Question, limits: FormLimits) -> tuple[tuple[str, str], ...]:
    if question.raw_token_ids is not None:
        if not question.raw_token_ids:
            raise InvalidInput("the prompt has no tokens", reason="empty")
        return ()
    turns = question.turns if question.raw_text is None else (("user", question.raw_text),)
    if not 1 <= len(turns) <= limits.max_turns:
        raise InvalidInput(f"{len(turns)} messages; from 1 to {limits.max_turns} are taken", reason="bad_messages")
    if any(role not in ROLES for role, _ in turns):
        raise InvalidInput(f"a message's role is one of {', '.join(ROLES)}", reason="bad_messages")
    if turns[-1][0] != "user":
        raise InvalidInput("the last message must be the user's", reason="bad_messages")
    decoded = tuple((role, text(raw)) for role, raw in turns)
    if is_blank(decoded[-1][1]):
        raise InvalidInput("the prompt is empty, or only whitespace and invisible characters", reason="empty")
    return decoded
