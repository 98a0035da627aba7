"""Training data in the shapes people have, as tokens: demonstrations, rankings, prompts, plain texts.

A prompt is what a user writes; the model's own chat template is put around it, as everywhere in the platform. It may
also be a conversation, a list of {"role", "content"}. A response ends with the end token. Nothing is ever cut to fit:
a row over a limit is an error. Fields that are not named here are ignored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.learner.training.rows import Row, kind, read_rows
from onlinerlhf.models.tokenizer import PromptTokenizer

MAX_RESPONSES = 9
"""Ranked at once (Ouyang et al. 2022, section 3.4)."""
Paths = Path | Sequence[Path]
_TEXT_OR_MESSAGES = "a text or a list of messages"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A demonstration: a prompt and the response that somebody wrote."""

    prompt: list[int]
    response: list[int]
    user: str = ""
    """Who asked; empty where the file does not say."""

    @property
    def num_tokens(self) -> int:
        """Of both."""
        return len(self.prompt) + len(self.response)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Responses to one prompt as somebody ranked them."""

    prompt: list[int]
    responses: list[list[int]]
    ranks: list[int]
    """One a response: 0 is best, equal numbers are a tie, -1 means not ranked."""
    labeler: str = ""

    @property
    def has_pairs(self) -> bool:
        """Whether one response is preferred to another, so that there is something to learn."""
        return len({rank for rank in self.ranks if rank >= 0}) > 1

    @property
    def num_tokens(self) -> int:
        """Of all sequences, the prompt counted in each."""
        return sum(len(self.prompt) + len(response) for response in self.responses)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRow:
    """A prompt to sample from."""

    ids: list[int]
    user: str = ""


@dataclass(frozen=True, slots=True)
class _Encoder:
    """Turns a row's fields into tokens within the limits."""

    tokenizer: PromptTokenizer
    max_prompt_tokens: int
    max_response_tokens: int

    def prompt(self, row: Row, value: Any) -> list[int]:
        """Of a text, or of a conversation that ends before the response."""
        field = "prompt"
        if isinstance(value, list):
            ids = self._conversation(row, field, value)
        else:
            ids = self.tokenizer.encode_prompt(row.checked_text(field, value))
        if len(ids) > self.max_prompt_tokens:
            raise row.error(field, _too_long("prompt", len(ids), self.max_prompt_tokens))
        return ids

    def response(self, row: Row, field: str, value: Any, *, may_be_empty: bool = False) -> list[int]:
        """Of a text, or of a list of one message of the assistant's; with the end token."""
        if isinstance(value, list):
            value = _reply(row, field, value)
        text = "" if value == "" and may_be_empty else row.checked_text(field, value)
        ids = [*self.tokenizer.encode_text(text), self.tokenizer.eos_token_id]
        if len(ids) > self.max_response_tokens:
            raise row.error(field, _too_long("response", len(ids), self.max_response_tokens))
        return ids

    def _conversation(self, row: Row, field: str, messages: list[Any]) -> list[int]:
        turns = [_turn(row, field, message) for message in messages]
        if not turns or turns[-1][0] == "assistant":
            raise row.error(field, "expected a conversation that ends before the assistant's response")
        try:
            return self.tokenizer.encode_chat(turns)
        except ConfigError as error:
            raise row.error(field, str(error)) from None


def load_demonstrations(
    paths: Paths, tokenizer: PromptTokenizer, *, max_prompt_tokens: int, max_response_tokens: int
) -> list[Example]:
    """{"prompt", "completion"}, and "user" on every row or on none."""
    encoder = _Encoder(tokenizer, max_prompt_tokens, max_response_tokens)
    users = _Users()
    return [
        Example(
            prompt=encoder.prompt(row, row.get("prompt", _TEXT_OR_MESSAGES)),
            response=encoder.response(row, "completion", row.get("completion", _TEXT_OR_MESSAGES)),
            user=users.of(row),
        )
        for row in read_rows(paths)
    ]


def load_rankings(
    paths: Paths, tokenizer: PromptTokenizer, *, max_prompt_tokens: int, max_response_tokens: int
) -> list[Ranking]:
    """{"prompt", "responses", "ranks"}, or {"prompt", "chosen", "rejected"}; either with "labeler" or without.

    Without "prompt", it is what chosen and rejected begin with in common.
    """
    encoder = _Encoder(tokenizer, max_prompt_tokens, max_response_tokens)
    return [_ranking(row, encoder) for row in read_rows(paths)]


def load_prompts(paths: Paths, tokenizer: PromptTokenizer, *, max_prompt_tokens: int) -> list[PromptRow]:
    """{"prompt"}, and "user" on every row or on none."""
    encoder = _Encoder(tokenizer, max_prompt_tokens, max_response_tokens=0)
    users = _Users()
    return [
        PromptRow(ids=encoder.prompt(row, row.get("prompt", _TEXT_OR_MESSAGES)), user=users.of(row))
        for row in read_rows(paths)
    ]


def load_texts(paths: Paths, *, field: str = "text") -> list[str]:
    """One text a row, for the pretraining mix."""
    return [row.text(field) for row in read_rows(paths)]


class _Users:
    """Sees to it that all rows name a user or none does: a split by user needs every one of them."""

    def __init__(self) -> None:
        self._are_named: bool | None = None

    def of(self, row: Row) -> str:
        """The row's user."""
        is_named = row.has("user")
        if self._are_named is None:
            self._are_named = is_named
        if is_named != self._are_named:
            before = "name one" if self._are_named else "name none"
            raise row.error("user", f"the rows before {before}; expected a user on every row or on none")
        return row.text("user") if is_named else ""


def _ranking(row: Row, encoder: _Encoder) -> Ranking:
    labeler = row.text("labeler") if row.has("labeler") else ""
    if row.has("chosen") or row.has("rejected"):
        prompt, responses = _pair(row, encoder)
        ranks = [0, 1] if responses[0] != responses[1] else [0, 0]
        return Ranking(prompt=prompt, responses=responses, ranks=ranks, labeler=labeler)
    values = row.items("responses", "a list of responses, or the fields chosen and rejected")
    if not 2 <= len(values) <= MAX_RESPONSES:
        raise row.error("responses", f"expected 2 to {MAX_RESPONSES} responses, got {len(values)}")
    ranks = _ranks(row, len(values))
    responses = [
        encoder.response(row, f"responses[{place}]", value, may_be_empty=True) for place, value in enumerate(values)
    ]
    prompt = encoder.prompt(row, row.get("prompt", _TEXT_OR_MESSAGES))
    return Ranking(prompt=prompt, responses=responses, ranks=ranks, labeler=labeler)


def _ranks(row: Row, count: int) -> list[int]:
    values = row.items("ranks", "a list of ranks, one a response")
    if len(values) != count:
        raise row.error("ranks", f"expected {count} ranks, one a response, got {len(values)}")
    ranks = []
    for place, value in enumerate(values):
        # A Parquet column that once held a null has floats for whole numbers.
        is_whole = isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()
        if not is_whole or not -1 <= value < count:
            shown = value if isinstance(value, int | float) else kind(value)
            allowed = f"a whole number from 0 (best) to {count - 1}, or -1 for a response that was not ranked"
            raise row.error(f"ranks[{place}]", f"expected {allowed}, got {shown}")
        ranks.append(int(value))
    return ranks


def _pair(row: Row, encoder: _Encoder) -> tuple[list[int], list[list[int]]]:
    """The prompt, and chosen and rejected."""
    chosen, rejected = (row.get(field, _TEXT_OR_MESSAGES) for field in ("chosen", "rejected"))
    if not isinstance(chosen, str | list) or type(chosen) is not type(rejected):
        raise row.error("chosen", f"expected two texts or two lists of messages, got {kind(chosen)}, {kind(rejected)}")
    prompt = row.values.get("prompt")
    if prompt is None:
        num_common = _num_common(chosen, rejected)
        if num_common == 0:
            raise row.error("prompt", "is missing, and chosen and rejected have no common beginning in its place")
        prompt, chosen, rejected = chosen[:num_common], chosen[num_common:], rejected[num_common:]
    pair = ("chosen", chosen), ("rejected", rejected)
    return encoder.prompt(row, prompt), [encoder.response(row, field, value) for field, value in pair]


def _num_common(a: str | list[Any], b: str | list[Any]) -> int:
    """How many messages, or how many characters up to a word's start, two responses have in common."""
    num_common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
    if isinstance(a, str):
        while num_common and not a[num_common - 1].isspace():
            num_common -= 1
        return num_common
    return max(0, min(num_common, len(a) - 1, len(b) - 1))


def _reply(row: Row, field: str, messages: list[Any]) -> str:
    if len(messages) != 1:
        raise row.error(field, f"expected one message of the assistant's, got {len(messages)} messages")
    role, text = _turn(row, field, messages[0])
    if role != "assistant":
        raise row.error(field, "expected a message whose role is assistant")
    return text


def _turn(row: Row, field: str, message: object) -> tuple[str, str]:
    """Role and text of one message."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise row.error(field, f"expected messages with the fields role and content, got {kind(message)}")
    return message["role"], row.checked_text(f"{field}.content", message.get("content"))


def _too_long(what: str, num_tokens: int, limit: int) -> str:
    advice = f"shorten it, drop the row, or raise max_{what}_tokens"
    return f"{num_tokens} tokens exceed the limit of {limit} tokens a {what}; {advice}"
