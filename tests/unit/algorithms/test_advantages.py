import pytest
import torch

from onlinerlhf.algorithms.advantages import gae, whiten_advantages

MASK = torch.tensor([[False, True, True, True, False], [True, True, False, False, False]])


def test_gae_of_three_tokens_by_hand() -> None:
    # delta_3 = 2 - 0.5 = 1.5; delta_2 = 0 + 0.5 - 1 = -0.5; delta_1 = 1 + 1 - 3 = -1
    # A_3 = 1.5; A_2 = -0.5 + 0.5 * 1.5 = 0.25; A_1 = -1 + 0.5 * 0.25 = -0.875
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


@pytest.mark.parametrize(("gamma", "lambda_"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (1.0, 0.0)])
def test_gae_equals_the_sum_over_deltas_row_by_row_in_float64(gamma: float, lambda_: float) -> None:
    generator = torch.Generator().manual_seed(3)
    rewards = torch.randn(6, 12, generator=generator, dtype=torch.float64)
    values = torch.randn(6, 12, generator=generator, dtype=torch.float64)
    spans = [(0, 12), (3, 7), (5, 6), (11, 12), (1, 11), (4, 12)]
    mask = torch.zeros(6, 12, dtype=torch.bool)
    expected = torch.zeros(6, 12, dtype=torch.float64)
    for row, (start, end) in enumerate(spans):
        mask[row, start:end] = True
        for t in range(start, end):
            for later in range(t, end):
                next_value = values[row, later + 1].item() if later + 1 < end else 0.0
                delta = rewards[row, later].item() + gamma * next_value - values[row, later].item()
                expected[row, t] += (gamma * lambda_) ** (later - t) * delta
    advantages, returns = gae(rewards=rewards, values=values, response_mask=mask, gamma=gamma, lambda_=lambda_)
    torch.testing.assert_close(advantages, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(returns, torch.where(mask, expected + values, 0), rtol=0, atol=1e-12)


def test_with_lambda_1_the_return_is_the_sum_of_rewards_to_come_whatever_the_values() -> None:
    _, returns = gae(
        rewards=torch.tensor([[0.0, -0.5, 0.25, 3.0]]),
        values=torch.tensor([[0.0, 5.0, -7.0, 0.5]]),
        response_mask=torch.tensor([[False, True, True, True]]),
        gamma=1.0,
        lambda_=1.0,
    )
    assert returns.tolist() == [[0.0, 2.75, 3.25, 3.0]]


def test_whitening_is_over_the_batch_and_leaves_masked_tokens_0() -> None:
    advantages = torch.tensor([[7.0, 1.0, 1.0, 1.0, 7.0], [6.0, 6.0, 7.0, 7.0, 7.0]])
    # mean 15 / 5 = 3, variance (3 * 4 + 2 * 9) / 5 = 6
    low, high = -2 / 6**0.5, 3 / 6**0.5
    torch.testing.assert_close(
        whiten_advantages(advantages, MASK),
        torch.tensor([[0.0, low, low, low, 0.0], [high, high, 0.0, 0.0, 0.0]]),
    )
