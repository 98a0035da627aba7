"""Generalised advantage estimation over response tokens.

Source: Schulman et al. 2015 (arXiv:1506.02438), equation 16.
"""

import torch
from torch import Tensor

from onlinerlhf.algorithms.masking import masked_whiten


def gae(
    *, rewards: Tensor, values: Tensor, response_mask: Tensor, gamma: float, lambda_: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns, 0 outside the response.

    delta_t = r_t + gamma V_{t+1} - V_t, with V = 0 after the last response token (the episode ends there, by EOS or by
    truncation alike)
    A_t = delta_t + gamma lambda A_{t+1}
    R_t = A_t + V_t, the value net's target

    rewards[b, t]: for the token at t. values[b, t]: of the state before it. All [B, T] -> ([B, T], [B, T]).
    """
    rewards = torch.where(response_mask, rewards, 0)
    values = torch.where(response_mask, values, 0)
    advantages = torch.zeros_like(values)
    next_advantage = torch.zeros_like(values[:, 0])
    next_value = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        # Outside the response both stay 0, so a padded tail is the same as the end of the tensor.
        next_advantage = torch.where(response_mask[:, t], delta + gamma * lambda_ * next_advantage, 0)
        next_value = values[:, t]
        advantages[:, t] = next_advantage
    return advantages, advantages + values


def whiten_advantages(advantages: Tensor, response_mask: Tensor) -> Tensor:
    """Mean 0 and variance 1 over all response tokens of the *batch* (not of a row or a minibatch). [B, T] -> [B, T]."""
    return masked_whiten(advantages, response_mask)
