"""vLLM's outputs, read as evidence: token ids, log-probabilities, version spans and the finish reason."""

import math
from dataclasses import dataclass
from typing import Any

from onlinerlhf.core.errors import Unavailable
from onlinerlhf.core.samples import FinishReason, Rollout, VersionSpan

_FINISH = {"stop": FinishReason.EOS, "length": FinishReason.LENGTH}


@dataclass(frozen=True, slots=True, kw_only=True)
class TopLogprobs:
    """The likeliest tokens at one position, most likely first. Fewer than asked for where top-p left fewer."""

    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    """Nats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLogprobs:
    """The prompt's tokens given those before them. The first has none: its logprob is 0 and its top list empty."""

    logprobs: tuple[float, ...]
    """Nats, the model's own, one a prompt token."""
    top: tuple[TopLogprobs, ...] = ()
    """One a prompt token; empty where none were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Part of a streamed response: tokens sampled since the last one."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    """What can be told of the text: the end of it is held back while it may begin a stop string."""
    top_logprobs: tuple[TopLogprobs, ...] = ()
    """One a token; empty where none were asked for."""
    prompt_logprobs: PromptLogprobs | None = None
    """On the first piece only, where asked for."""
    finish_reason: FinishReason | None = None
    """On the last piece only, as are the spans."""
    version_spans: tuple[VersionSpan, ...] = ()


def rollout_from(output: Any) -> Rollout:
    """A finished training response, of a CompletionOutput. One cut at a stop string is none: EOS or length ends it."""
    finish_reason = _finish_reason(output)
    if finish_reason is FinishReason.STOP:
        raise Unavailable("the engine ended a training response at a stop string")
    return Rollout(
        token_ids=tuple(output.token_ids),
        # With logprobs=0 each position holds exactly one: the sampled token's own.
        behaviour_logprobs=_covering(output.logprobs.logprobs, output),
        version_spans=_spans(output),
        finish_reason=finish_reason,
    )


def piece_from(output: Any, *, num_top_logprobs: int = 0) -> Piece:
    """What a streamed response has grown by, of a RequestOutput."""
    completion, prompt = output.outputs[0], output.prompt_logprobs
    last = completion.finish_reason is not None
    return Piece(
        token_ids=tuple(completion.token_ids),
        logprobs=_covering(_own(completion.logprobs), completion),
        text=completion.text,
        top_logprobs=_tops(completion.logprobs, num_top_logprobs),
        # vLLM gives an empty list with every piece after the first.
        prompt_logprobs=_prompt_logprobs(prompt, output.prompt_token_ids, num_top_logprobs) if prompt else None,
        finish_reason=_finish_reason(completion) if last else None,
        version_spans=_spans(completion) if last else (),
    )


def _covering(values: list[float], output: Any) -> tuple[float, ...]:
    """Rounding may leave them above 0."""
    logprobs = tuple(min(value, 0.0) for value in values)
    if len(logprobs) != len(output.token_ids):
        raise Unavailable(f"the engine gave {len(logprobs)} logprobs for {len(output.token_ids)} tokens")
    return logprobs


def _own(flat: Any) -> list[float]:
    """At each position the token that is there comes first."""
    return [flat.logprobs[start] for start in flat.start_indices]


def _tops(flat: Any, num: int) -> tuple[TopLogprobs, ...]:
    if num == 0:
        return ()
    return tuple(_top(flat, start, end, num) for start, end in zip(flat.start_indices, flat.end_indices, strict=True))


def _top(flat: Any, start: int, end: int, num: int) -> TopLogprobs:
    """The `num` likeliest of a position.

    It holds the token that is there, then the likeliest, among which vLLM lists the former again, or not where it put
    two outputs of a slow reader together. What top-p cut off (-inf) is no candidate.
    """
    each = dict(zip(flat.token_ids[start:end], flat.logprobs[start:end], strict=True))
    candidates = [(token_id, logprob) for token_id, logprob in each.items() if logprob > -math.inf]
    best = sorted(candidates, key=lambda candidate: -candidate[1])[:num]
    return TopLogprobs(
        token_ids=tuple(token_id for token_id, _ in best), logprobs=tuple(min(logprob, 0.0) for _, logprob in best)
    )


def _prompt_logprobs(flat: Any, prompt_token_ids: list[int], num_top: int) -> PromptLogprobs:
    """Position 0 is empty."""
    if len(flat) != len(prompt_token_ids):
        raise Unavailable(f"the engine gave {len(flat)} logprobs for {len(prompt_token_ids)} prompt tokens")
    own = [flat.logprobs[start] for start in flat.start_indices[1:]]
    return PromptLogprobs(logprobs=(0.0, *(min(value, 0.0) for value in own)), top=_tops(flat, num_top))


def _spans(output: Any) -> tuple[VersionSpan, ...]:
    return tuple(
        VersionSpan(version=int(span.version), num_tokens=span.end - span.start)
        for span in output.weight_versions or ()
        if span.end > span.start
    )


def _finish_reason(output: Any) -> FinishReason:
    """vLLM says "stop" for the end-of-sequence token (stop_reason None, or the id where a model has several) and for a
    stop string (stop_reason is the string)."""
    if output.finish_reason == "stop" and isinstance(output.stop_reason, str):
        return FinishReason.STOP
    try:
        return _FINISH[output.finish_reason]
    except KeyError:
        raise Unavailable(f"the engine ended a request with {output.finish_reason!r}") from None
