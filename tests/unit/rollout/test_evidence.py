"""vLLM's outputs as this project reads them. The fakes have the fields of vLLM's own, and no more."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from onlinerlhf.core.errors import Unavailable
from onlinerlhf.core.samples import FinishReason, VersionSpan
from onlinerlhf.rollout.evidence import PromptLogprobs, TopLogprobs, piece_from, rollout_from


def flat(*positions: dict[int, float] | list[tuple[int, float]]) -> Any:
    """FlatLogprobs: at each position first the token that is there, then the likeliest ones."""
    rows = [list(each.items()) if isinstance(each, dict) else each for each in positions]
    ends = [sum(len(row) for row in rows[: index + 1]) for index in range(len(rows))]

    class Flat(SimpleNamespace):
        def __len__(self) -> int:
            return len(rows)

    return Flat(
        start_indices=[end - len(row) for end, row in zip(ends, rows, strict=True)],
        end_indices=ends,
        token_ids=[token_id for row in rows for token_id, _ in row],
        logprobs=[logprob for row in rows for _, logprob in row],
    )


def completion(**fields: Any) -> Any:
    defaults = {
        "token_ids": [11],
        "logprobs": flat({11: -0.5}),
        "text": "a",
        "finish_reason": None,
        "stop_reason": None,
        "weight_versions": None,
    }
    return SimpleNamespace(**{**defaults, **fields})


def request_output(*, prompt_logprobs: Any = None, prompt_token_ids: list[int] | None = None, **fields: Any) -> Any:
    return SimpleNamespace(
        outputs=[completion(**fields)], prompt_logprobs=prompt_logprobs, prompt_token_ids=prompt_token_ids or [5]
    )


SPAN = SimpleNamespace(version="3", start=0, end=1)


@pytest.mark.parametrize(
    ("finish_reason", "stop_reason", "expected"),
    [
        ("stop", None, FinishReason.EOS),
        ("stop", 151643, FinishReason.EOS),
        ("stop", "\n\n", FinishReason.STOP),
        ("length", None, FinishReason.LENGTH),
    ],
    ids=["the end token", "one of several end tokens", "a stop string", "cut"],
)
def test_a_stop_string_is_told_from_the_end_of_sequence_token(
    finish_reason: str, stop_reason: str | int | None, expected: FinishReason
) -> None:
    output = request_output(finish_reason=finish_reason, stop_reason=stop_reason, weight_versions=[SPAN])
    piece = piece_from(output)

    assert piece.finish_reason is expected
    assert piece.version_spans == (VersionSpan(version=3, num_tokens=1),)


def test_a_training_response_cut_at_a_stop_string_is_refused() -> None:
    output = completion(finish_reason="stop", stop_reason="###", weight_versions=[SPAN])
    with pytest.raises(Unavailable, match="stop string"):
        rollout_from(output)


def test_a_training_response_that_ends_with_another_end_token_is_evidence() -> None:
    output = completion(finish_reason="stop", stop_reason=151643, weight_versions=[SPAN])
    assert rollout_from(output).finish_reason is FinishReason.EOS


def test_an_end_that_is_none_of_these_is_an_error() -> None:
    with pytest.raises(Unavailable, match="'repetition'"):
        piece_from(request_output(finish_reason="repetition"))


def test_the_likeliest_tokens_come_in_order_and_the_sampled_one_only_if_it_is_among_them() -> None:
    logprobs = flat(
        # Sampled token 4 is the fifth likeliest; then sampled token 2 is the second likeliest, and comes twice.
        [(4, -5.0), (1, -0.5), (2, -1.5)],
        [(2, -1.5), (1, -0.5), (2, -1.5)],
    )
    piece = piece_from(request_output(token_ids=[4, 2], logprobs=logprobs), num_top_logprobs=2)

    best = TopLogprobs(token_ids=(1, 2), logprobs=(-0.5, -1.5))
    assert piece.top_logprobs == (best, best)
    assert piece.logprobs == (-5.0, -1.5)


def test_outputs_that_vllm_put_together_for_a_slow_reader_read_the_same() -> None:
    """It goes through a dict on the way, so that the sampled token is not there twice."""
    apart = flat([(7, -0.2), (7, -0.2), (8, -2.0)], [(2, -1.5), (1, -0.5), (2, -1.5)])
    together = flat([(7, -0.2), (7, -0.2), (8, -2.0)], {2: -1.5, 1: -0.5})

    def read(logprobs: Any) -> Any:
        return piece_from(request_output(token_ids=[7, 2], logprobs=logprobs), num_top_logprobs=2)

    assert read(apart) == read(together)
    assert read(apart).logprobs == (-0.2, -1.5)


def test_tokens_that_top_p_cut_off_are_not_among_the_likeliest() -> None:
    logprobs = flat([(1, -0.25), (1, -0.25), (2, -1.5), (3, -math.inf), (0, -math.inf)])
    piece = piece_from(request_output(token_ids=[1], logprobs=logprobs), num_top_logprobs=4)

    assert piece.top_logprobs == (TopLogprobs(token_ids=(1, 2), logprobs=(-0.25, -1.5)),)


def test_logprobs_that_rounding_left_above_zero_are_zero() -> None:
    logprobs = flat([(1, 1e-7), (1, 1e-7), (2, -16.0)])
    piece = piece_from(request_output(token_ids=[1], logprobs=logprobs), num_top_logprobs=1)

    assert piece.logprobs == (0.0,)
    assert piece.top_logprobs[0].logprobs == (0.0,)


def test_nothing_is_told_beyond_what_was_asked_for() -> None:
    piece = piece_from(request_output())

    assert piece.top_logprobs == ()
    assert piece.prompt_logprobs is None


def test_prompt_logprobs_begin_with_a_token_that_has_none() -> None:
    prompt = flat([], [(6, -3.0), (9, -0.5)], [(7, -0.75), (7, -0.75)])
    piece = piece_from(request_output(prompt_logprobs=prompt, prompt_token_ids=[5, 6, 7]), num_top_logprobs=1)

    assert piece.prompt_logprobs == PromptLogprobs(
        logprobs=(0.0, -3.0, -0.75),
        top=(
            TopLogprobs(),
            TopLogprobs(token_ids=(9,), logprobs=(-0.5,)),
            TopLogprobs(token_ids=(7,), logprobs=(-0.75,)),
        ),
    )


def test_prompt_logprobs_without_likeliest_tokens_are_the_prompts_own() -> None:
    prompt = flat([], [(6, -3.0)])
    piece = piece_from(request_output(prompt_logprobs=prompt, prompt_token_ids=[5, 6]))

    assert piece.prompt_logprobs == PromptLogprobs(logprobs=(0.0, -3.0), top=())


def test_logprobs_that_do_not_cover_the_tokens_are_an_error() -> None:
    with pytest.raises(Unavailable, match="1 logprobs for 2 tokens"):
        piece_from(request_output(token_ids=[1, 2], logprobs=flat({1: -0.5})))
    with pytest.raises(Unavailable, match="2 logprobs for 3 prompt tokens"):
        piece_from(request_output(prompt_logprobs=flat([], [(6, -3.0)]), prompt_token_ids=[5, 6, 7]))
