"""A vLLM CompletionOutput, read as evidence: token ids, log-probabilities, version spans and the finish reason."""

from dataclasses import dataclass
from typing import Any

from onlinerlhf.core.errors import Unavailable
from onlinerlhf.core.samples import FinishReason, Rollout, VersionSpan

_FINISH = {"stop": FinishReason.EOS, "length": FinishReason.LENGTH}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Part of a streamed response: tokens sampled since the last one."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: FinishReason | None = None
    """On the last piece only, as are the spans."""
    version_spans: tuple[VersionSpan, ...] = ()


def rollout_from(output: Any) -> Rollout:
    """A finished response."""
    return Rollout(
        token_ids=tuple(output.token_ids),
        behaviour_logprobs=_logprobs(output),
        version_spans=_spans(output),
        finish_reason=_finish_reason(output),
    )


def piece_from(output: Any) -> Piece:
    """What a streamed response has grown by."""
    last = output.finish_reason is not None
    return Piece(
        token_ids=tuple(output.token_ids),
        logprobs=_logprobs(output),
        text=output.text,
        finish_reason=_finish_reason(output) if last else None,
        version_spans=_spans(output) if last else (),
    )


def _logprobs(output: Any) -> tuple[float, ...]:
    """The sampled tokens' own: with logprobs=0 each position holds exactly one. Rounding may leave it above 0."""
    logprobs = tuple(min(value, 0.0) for value in output.logprobs.logprobs)
    if len(logprobs) != len(output.token_ids):
        raise Unavailable(f"the engine gave {len(logprobs)} logprobs for {len(output.token_ids)} tokens")
    return logprobs


def _spans(output: Any) -> tuple[VersionSpan, ...]:
    return tuple(
        VersionSpan(version=int(span.version), num_tokens=span.end - span.start)
        for span in output.weight_versions or ()
        if span.end > span.start
    )


def _finish_reason(output: Any) -> FinishReason:
    try:
        return _FINISH[output.finish_reason]
    except KeyError:
        raise Unavailable(f"the engine ended a request with {output.finish_reason!r}") from None
