"""Logprobs in the two forms OpenAI's API has for them. Natural logarithms."""

import math
from collections.abc import Sequence
from itertools import repeat
from typing import Final

from onlinerlhf.gateway.http.responses import ChatLogprobs, CompletionLogprobs, TokenLogprob
from onlinerlhf.gateway.http.tokens import TokenTexts
from onlinerlhf.gateway.requests.lane import AnswerTokens, PromptLogprobs, TopLogprobs

LOWEST: Final = -9999.0
"""Stands for minus infinity, which JSON has no word for."""


def chat_logprobs(texts: TokenTexts, tokens: AnswerTokens) -> ChatLogprobs:
    """Of sampled tokens, each with the likeliest at its position where these were asked for."""
    tops = tokens.top_logprobs or repeat(TopLogprobs(), len(tokens.token_ids))
    content: list[TokenLogprob] = [
        {
            "token": texts.text(token_id),
            "logprob": finite(logprob),
            "bytes": texts.raw(token_id),
            "top_logprobs": [
                {"token": texts.text(each), "logprob": finite(value), "bytes": texts.raw(each)}
                for each, value in zip(top.token_ids, top.logprobs, strict=True)
            ],
        }
        for token_id, logprob, top in zip(tokens.token_ids, tokens.logprobs, tops, strict=True)
    ]
    return {"content": content, "refusal": None}


def prompt_logprobs(texts: TokenTexts, token_ids: Sequence[int], prompt: PromptLogprobs) -> CompletionLogprobs:
    """Of an echoed prompt; nothing comes before its first token, which therefore has none."""
    logprobs = _completion_logprobs(texts, token_ids, prompt.logprobs, prompt.top, start=0)
    logprobs["token_logprobs"][:1] = [None]
    logprobs["top_logprobs"][:1] = [None]
    return logprobs


def completion_logprobs(texts: TokenTexts, tokens: AnswerTokens, *, start: int) -> CompletionLogprobs:
    """Of sampled tokens; `start`: how many characters of the choice's text come before them."""
    return _completion_logprobs(texts, tokens.token_ids, tokens.logprobs, tokens.top_logprobs, start=start)


def no_logprobs() -> CompletionLogprobs:
    """Of no tokens, to be extended."""
    return {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}


def extend(logprobs: CompletionLogprobs, more: CompletionLogprobs) -> None:
    """Append the later tokens."""
    logprobs["tokens"] += more["tokens"]
    logprobs["token_logprobs"] += more["token_logprobs"]
    logprobs["top_logprobs"] += more["top_logprobs"]
    logprobs["text_offset"] += more["text_offset"]


def finite(logprob: float) -> float:
    """As JSON can say it."""
    return logprob if math.isfinite(logprob) else LOWEST


def _completion_logprobs(
    texts: TokenTexts,
    token_ids: Sequence[int],
    logprobs: Sequence[float],
    tops: Sequence[TopLogprobs],
    *,
    start: int,
) -> CompletionLogprobs:
    by_position = tops or repeat(TopLogprobs(), len(token_ids))
    return {
        "tokens": [texts.text(token_id) for token_id in token_ids],
        "token_logprobs": [finite(logprob) for logprob in logprobs],
        "top_logprobs": [
            _top(texts, token_id, logprob, top)
            for token_id, logprob, top in zip(token_ids, logprobs, by_position, strict=True)
        ],
        "text_offset": texts.offsets(token_ids, start=start),
    }


def _top(texts: TokenTexts, token_id: int, logprob: float, top: TopLogprobs) -> dict[str, float]:
    """The likeliest by their texts, and always the token itself. Of two with one text the likelier stays."""
    named: dict[str, float] = {}
    for each, value in ((token_id, logprob), *zip(top.token_ids, top.logprobs, strict=True)):
        name = texts.name(each)
        named[name] = max(finite(value), named.get(name, LOWEST))
    return named
