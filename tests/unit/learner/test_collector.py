import math

import pytest

from onlinerlhf.core.errors import InvalidInput
from onlinerlhf.core.samples import FinishReason, Rollout, RolloutGroup, SamplingSpec, ScoredGroup, VersionSpan
from onlinerlhf.learner.collector import scored_rollouts
from prompts import a_prompt


def _scored(*, temperature: float = 1.0, top_p: float = 1.0, response: tuple[int, ...] = (7, 2)) -> ScoredGroup:
    prompt = a_prompt(token_ids=(4, 5))
    rollout = Rollout(
        token_ids=response,
        behaviour_logprobs=(-1.0,) * len(response),
        version_spans=(VersionSpan(version=3, num_tokens=len(response)),),
        finish_reason=FinishReason.EOS,
    )
    sampling = SamplingSpec(num_responses=2, max_tokens=8, temperature=temperature, top_p=top_p)
    group = RolloutGroup(prompt=prompt, sampling=sampling, rollouts=(rollout, rollout), worker_id="w")
    return ScoredGroup(group=group, scores=(0.5, -0.5), reward_model_version="rm")


def test_a_sample_becomes_a_rollout_for_each_of_its_responses() -> None:
    first, second = scored_rollouts(_scored(temperature=0.7), vocab_size=8)
    assert (first.prompt_ids, first.response_ids, first.behaviour_logprobs) == ((4, 5), (7, 2), (-1.0, -1.0))
    assert (first.score, second.score) == (0.5, -0.5)
    assert first.temperature == 0.7


@pytest.mark.parametrize(
    ("scored", "reason"),
    [
        (_scored(top_p=0.9), "top_p"),
        (_scored(temperature=0.0), "temperature"),
        (_scored(temperature=math.inf), "temperature"),
        (_scored(response=(7, 8)), "token_id"),
        (_scored(response=(-1, 2)), "token_id"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_with_a_reason(scored: ScoredGroup, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        scored_rollouts(scored, vocab_size=8)
    assert caught.value.reason == reason


def test_a_sample_of_fewer_responses_than_are_compared_is_refused() -> None:
    assert len(scored_rollouts(_scored(), vocab_size=8, min_responses=2)) == 2
    with pytest.raises(InvalidInput, match="2 responses, learnable is 3 or more") as caught:
        scored_rollouts(_scored(), vocab_size=8, min_responses=3)
    assert caught.value.reason == "group_size"
