"""Advantages with and without a critic, against numbers worked out by hand."""

import pytest
import torch

from onlinerlhf.algorithms.advantages import gae, grpo_advantages, rloo_advantages, whiten_advantages

MASK = torch.tensor([[False, True, True, True, False], [True, True, False, False, False]])
# Responses to two prompts, in turns: rewards 1, 2, 6 of prompt 70 and 0, 1 of prompt 5.
GROUPS = torch.tensor([70, 5, 70, 70, 5])
SEQUENCE_REWARDS = torch.tensor([1.0, 0.0, 2.0, 6.0, 1.0])
TWO_TOKENS = torch.tensor([[True, True, False]]).expand(5, 3)


def test_gae_with_the_papers_gamma_1_and_lambda_095() -> None:
    # delta_3 = 1 - 0.8 = 0.2; delta_2 = 0.01 + 0.8 - 0.4 = 0.41; delta_1 = -0.02 + 0.4 - 0.5 = -0.12
    # A_3 = 0.2; A_2 = 0.41 + 0.95 * 0.2 = 0.6; A_1 = -0.12 + 0.95 * 0.6 = 0.45
    # R = A + V: 0.45 + 0.5, 0.6 + 0.4, 0.2 + 0.8
    advantages, returns = gae(
        rewards=torch.tensor([[9.0, -0.02, 0.01, 1.0]]),
        values=torch.tensor([[9.0, 0.5, 0.4, 0.8]]),
        response_mask=torch.tensor([[False, True, True, True]]),
        gamma=1.0,
        lambda_=0.95,
    )
    torch.testing.assert_close(advantages, torch.tensor([[0.0, 0.45, 0.6, 0.2]]))
    torch.testing.assert_close(returns, torch.tensor([[0.0, 0.95, 1.0, 1.0]]))


def test_gae_ends_with_each_rows_response() -> None:
    # Row 0: delta_3 = 2 - 0.5 = 1.5; delta_2 = 0 + 0.5 - 1 = -0.5; delta_1 = 1 + 1 - 3 = -1
    #        A_3 = 1.5; A_2 = -0.5 + 0.5 * 1.5 = 0.25; A_1 = -1 + 0.5 * 0.25 = -0.875
    # Row 1: A_2 = delta_2 = 1; A_1 = 1 + 0.5 * 1
    rewards = torch.tensor([[9.0, 1.0, 0.0, 2.0, 9.0], [1.0, 1.0, 9.0, 9.0, 9.0]])
    values = torch.tensor([[9.0, 3.0, 1.0, 0.5, torch.nan], [0.0, 0.0, 9.0, 9.0, 9.0]])
    advantages, returns = gae(rewards=rewards, values=values, response_mask=MASK, gamma=1.0, lambda_=0.5)
    assert advantages.tolist() == [[0.0, -0.875, 0.25, 1.5, 0.0], [1.5, 1.0, 0.0, 0.0, 0.0]]
    assert returns.tolist() == [[0.0, 2.125, 1.25, 2.0, 0.0], [1.5, 1.0, 0.0, 0.0, 0.0]]


def test_gamma_discounts_the_next_value() -> None:
    # delta_2 = 1 - 2 = -1; A_1 = 0 + 0.5 * 2 - 1 + 0.5 * 1 * -1 = -0.5
    advantages, _ = gae(
        rewards=torch.tensor([[0.0, 1.0]]),
        values=torch.tensor([[1.0, 2.0]]),
        response_mask=torch.tensor([[True, True]]),
        gamma=0.5,
        lambda_=1.0,
    )
    assert advantages.tolist() == [[-0.5, -1.0]]


def test_with_lambda_1_the_return_is_the_sum_of_rewards_to_come_whatever_the_values() -> None:
    _, returns = gae(
        rewards=torch.tensor([[0.0, -0.5, 0.25, 3.0]]),
        values=torch.tensor([[0.0, 5.0, -7.0, 0.5]]),
        response_mask=torch.tensor([[False, True, True, True]]),
        gamma=1.0,
        lambda_=1.0,
    )
    assert returns.tolist() == [[0.0, 2.75, 3.25, 3.0]]


def test_advantages_are_whitened_over_the_batch_and_padding_stays_0() -> None:
    advantages = torch.tensor([[7.0, 1.0, 1.0, 1.0, 7.0], [6.0, 6.0, 7.0, 7.0, 7.0]])
    # mean 15 / 5 = 3, variance (3 * 4 + 2 * 9) / 5 = 6; -2 / sqrt 6 and 3 / sqrt 6
    low, high = -0.8164966, 1.2247449
    torch.testing.assert_close(
        whiten_advantages(advantages, MASK),
        torch.tensor([[0.0, low, low, low, 0.0], [high, high, 0.0, 0.0, 0.0]]),
    )


def test_rloo_takes_off_the_mean_of_the_others() -> None:
    found = rloo_advantages(sequence_rewards=SEQUENCE_REWARDS, groups=GROUPS, response_mask=TWO_TOKENS)
    # 1 - (2 + 6) / 2, 0 - 1, 2 - (1 + 6) / 2, 6 - (1 + 2) / 2, 1 - 0
    assert found.tolist() == [[a, a, 0.0] for a in (-3.0, -1.0, -1.5, 4.5, 1.0)]


def test_grpo_counts_in_sample_standard_deviations_of_the_group() -> None:
    found = grpo_advantages(sequence_rewards=SEQUENCE_REWARDS, groups=GROUPS, response_mask=TWO_TOKENS, epsilon=1e-4)
    # Prompt 70: mean 3, deviations -2, -1, 3, variance (4 + 1 + 9) / 2 = 7, std 2.645751
    # Prompt 5: mean 0.5, deviations -0.5, 0.5, variance (0.25 + 0.25) / 1, std 0.707107
    expected = (-2 / 2.645851, -0.5 / 0.707207, -1 / 2.645851, 3 / 2.645851, 0.5 / 0.707207)
    for row, a in zip(found.tolist(), expected, strict=True):
        assert row == pytest.approx([a, a, 0.0], abs=1e-6)


def test_a_group_of_equal_rewards_teaches_nothing() -> None:
    rewards, groups = torch.tensor([0.3, 0.3]), torch.tensor([1, 1])
    for estimate in (rloo_advantages, grpo_advantages):
        found = estimate(sequence_rewards=rewards, groups=groups, response_mask=TWO_TOKENS[:2])
        assert not found.any()
