import pytest
import torch

from onlinerlhf.algorithms.advantages import grpo_advantages, rloo_advantages

MASK = torch.tensor([[True, False], [True, True], [True, True]])


def test_a_response_without_others_to_the_same_prompt_is_refused_by_its_groups_name() -> None:
    rewards, groups = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4, 17, 4])
    with pytest.raises(ValueError, match="group 17 has one response"):
        rloo_advantages(sequence_rewards=rewards, groups=groups, response_mask=MASK)
    with pytest.raises(ValueError, match="group 17 has one response"):
        grpo_advantages(sequence_rewards=rewards, groups=groups, response_mask=MASK)


def test_another_groups_broken_reward_stays_there() -> None:
    rewards, groups = torch.tensor([1.0, 2.0, torch.nan, 1.0]), torch.tensor([4, 4, 5, 5])
    mask = torch.ones(4, 1, dtype=torch.bool)
    for estimate in (rloo_advantages, grpo_advantages):
        found = estimate(sequence_rewards=rewards, groups=groups, response_mask=mask)
        assert found[:, 0].isnan().tolist() == [False, False, True, True]
