"""Advantages of response tokens: with a critic (GAE), or from the other responses to the same prompt (RLOO, GRPO).

Sources: Schulman et al. 2015 (arXiv:1506.02438), equation 16; Ahmadian et al. 2024 (arXiv:2402.14740), section 3
(RLOO); Shao et al. 2024 (arXiv:2402.03300), section 4.1.2 (GRPO, outcome supervision).
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


def rloo_advantages(*, sequence_rewards: Tensor, groups: Tensor, response_mask: Tensor) -> Tensor:
    """A_i = R_i - mean of R_j over the *other* responses j of i's group, on every response token of row i.

    sequence_rewards: [B], score - kl_coef * KL of the sequence (nats). groups: [B] int64, equal numbers for responses
    to the same prompt; each group has two or more. 0 outside the response. -> [B, T].
    """
    others = _same_group(groups) & ~torch.eye(len(groups), dtype=torch.bool, device=groups.device)
    baselines = torch.where(others, sequence_rewards, 0).sum(dim=1) / others.sum(dim=1)
    return _on_response_tokens(sequence_rewards - baselines, response_mask)


def grpo_advantages(
    *, sequence_rewards: Tensor, groups: Tensor, response_mask: Tensor, epsilon: float = 1e-4
) -> Tensor:
    """A_i = (R_i - mean) / (std + epsilon), mean and std over i's group, on every response token of row i.

    std is the *sample* standard deviation (divided by the group's size less one); the paper leaves it open. `epsilon`
    keeps a group of equal rewards at 0. Arguments as in `rloo_advantages`. 0 outside the response. -> [B, T].
    """
    same = _same_group(groups)
    sizes = same.sum(dim=1)
    means = torch.where(same, sequence_rewards, 0).sum(dim=1) / sizes
    deviations = sequence_rewards - means
    stds = (torch.where(same, deviations.square(), 0).sum(dim=1) / (sizes - 1)).sqrt()
    return _on_response_tokens(deviations / (stds + epsilon), response_mask)


def _same_group(groups: Tensor) -> Tensor:
    """[i, j]: are i and j responses to the same prompt? [B] -> [B, B] bool. Refuses a group of one."""
    same = groups.unsqueeze(1) == groups
    alone = groups[same.sum(dim=1) == 1]
    if len(alone):
        raise ValueError(f"group {alone[0].item()} has one response; a baseline needs at least two in each group")
    return same


def _on_response_tokens(advantages: Tensor, response_mask: Tensor) -> Tensor:
    """Each row's number on its response tokens, 0 elsewhere. [B], [B, T] -> [B, T]."""
    return torch.where(response_mask, advantages.unsqueeze(1), 0)
