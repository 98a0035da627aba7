"""Responses sampled in this process."""

import pytest
import torch

from onlinerlhf.core.errors import NonFiniteLoss
from onlinerlhf.learner.sampling import Sampled, Sampling, sample_responses
from onlinerlhf.models.packed import pack, packed_token_logprobs
from unit.learner.tiny import tiny_policy

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [15, 16]]
EOS = 2


def draw(*, seed: int = 0, **settings: float) -> list[list[Sampled]]:
    how = Sampling(**{"max_tokens": 12, "eos_token_id": EOS, **settings})  # type: ignore[arg-type]
    return sample_responses(tiny_policy(), PROMPTS, how, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_recorded_logprobs_are_those_of_the_learners_own_pass(temperature: float) -> None:
    policy = tiny_policy()
    for prompt, responses in zip(PROMPTS, draw(num_responses=5, temperature=temperature, batch_size=10), strict=True):
        for response in responses:
            packed = pack([prompt + response.token_ids])
            is_response = packed.position_ids[0] >= len(prompt)
            count = len(response.token_ids)
            with torch.no_grad():
                expected = packed_token_logprobs(
                    policy, packed, is_response, temperatures=torch.full((count,), temperature)
                )
            torch.testing.assert_close(torch.tensor(response.logprobs), expected, atol=2e-5, rtol=0)


def test_each_prompt_gets_as_many_responses_as_asked_for_in_the_prompts_order() -> None:
    assert [len(responses) for responses in draw(num_responses=3, batch_size=3)] == [3, 3, 3, 3]


def test_a_response_is_finished_by_its_end_token_and_cut_off_at_the_limit() -> None:
    responses = [response for group in draw(num_responses=40) for response in group]
    for response in responses:
        assert response.is_finished == (response.token_ids[-1] == EOS)
        assert EOS not in response.token_ids[:-1]
        assert response.is_finished or len(response.token_ids) == 12
    assert {response.is_finished for response in responses} == {True, False}


def test_an_end_token_at_the_very_limit_finishes_the_response() -> None:
    responses = [response for group in draw(num_responses=200, max_tokens=1) for response in group]
    finished = [response for response in responses if response.token_ids == [EOS]]
    assert finished
    assert all(response.is_finished for response in finished)


def test_the_same_seed_draws_the_same_and_another_seed_does_not() -> None:
    assert draw(seed=1) == draw(seed=1) != draw(seed=2)


def test_logits_that_are_not_finite_are_refused() -> None:
    policy = tiny_policy()
    with torch.no_grad():
        policy.get_input_embeddings().weight[5, 0] = float("nan")
    how = Sampling(max_tokens=2, eos_token_id=EOS)
    with pytest.raises(NonFiniteLoss, match="while sampling"):
        sample_responses(policy, PROMPTS, how, generator=torch.Generator().manual_seed(0))
