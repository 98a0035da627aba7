"""The value net's clipped regression loss.

Source: the PPO of Schulman et al. 2017 as released (openai/baselines ppo2) and used by Ouyang et al. 2022.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from onlinerlhf.algorithms.masking import masked_sum


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueLoss:
    """Sums over a micro-batch's response tokens, divided by the number of response tokens of its minibatch."""

    loss: Tensor
    """[], differentiable with respect to `values`."""
    clipfrac: Tensor
    """Share of tokens where the clipped branch is the larger loss."""


def value_loss(
    *, values: Tensor, old_values: Tensor, returns: Tensor, response_mask: Tensor, clip_range: float, num_tokens: int
) -> ValueLoss:
    """sum_t 0.5 max((V - R)^2, (clip(V, V_old - eps, V_old + eps) - R)^2) / num_tokens.

    The mean is over the *minibatch's* response tokens, `num_tokens` of them (see `policy_loss`). `old_values`: at the
    start of the batch. All tensors [B, T].
    """
    values = torch.where(response_mask, values, 0)
    old_values = torch.where(response_mask, old_values, 0)
    returns = torch.where(response_mask, returns, 0)
    clipped_values = torch.clamp(values, old_values - clip_range, old_values + clip_range)
    unclipped = (values - returns).square()
    clipped = (clipped_values - returns).square()
    is_clipped = (clipped > unclipped).detach()
    return ValueLoss(
        loss=masked_sum(0.5 * torch.maximum(unclipped, clipped), response_mask) / num_tokens,
        clipfrac=masked_sum(is_clipped.to(values.dtype), response_mask) / num_tokens,
    )
