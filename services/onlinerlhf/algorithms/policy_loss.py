"""PPO's clipped policy loss, with a truncated importance weight for tokens that an older policy sampled.

Sources: Schulman et al. 2017 (arXiv:1707.06347), equation 7; the weight: Espeholt et al. 2018 (arXiv:1802.01561),
the truncation of section 4.1, applied per token between the sampler and the policy at the start of the batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from onlinerlhf.algorithms.masking import masked_max, masked_mean, masked_sum


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportanceWeights:
    """How far the learner's policy at batch start is from what sampled the tokens."""

    weights: Tensor
    """[B, T], detached; 1 outside the response."""
    mean: float
    maximum: float
    """Before truncation, so that a sampler gone astray shows."""
    clipped_share: float
    """Share of response tokens whose weight was truncated."""


def importance_weights(
    *, old_logprobs: Tensor, behaviour_logprobs: Tensor, response_mask: Tensor, max_weight: float
) -> ImportanceWeights:
    """w_t = min(exp(old_t - behaviour_t), max_weight), per token.

    Mean (after truncation) and share are over the batch's response tokens. All [B, T], nats.
    """
    log_ratio = torch.where(response_mask, old_logprobs - behaviour_logprobs, 0).detach()
    # Finite, so that what is reported stays a number.
    raw = log_ratio.exp().clamp(max=torch.finfo(log_ratio.dtype).max)
    weights = torch.where(response_mask, raw.clamp(max=max_weight), 1)
    return ImportanceWeights(
        weights=weights,
        mean=masked_mean(weights, response_mask).item(),
        maximum=masked_max(raw, response_mask).item(),
        clipped_share=masked_mean((raw > max_weight).to(raw.dtype), response_mask).item(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoss:
    """Sums over a micro-batch's response tokens, divided by the number of response tokens of its minibatch."""

    loss: Tensor
    """[], differentiable with respect to `logprobs`."""
    pg_clipfrac: Tensor
    """Share of tokens where the clipped branch is the larger loss."""
    approx_kl: Tensor
    """0.5 (log pi - log pi_old)^2, nats: how far the minibatch updates have moved the policy."""


def policy_loss(
    *,
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    weights: Tensor,
    response_mask: Tensor,
    clip_range: float,
    num_tokens: int,
) -> PolicyLoss:
    """sum_t w_t max(-A_t rho_t, -A_t clip(rho_t, 1 - eps, 1 + eps)) / num_tokens, rho_t = exp(log pi_t - log pi_old_t).

    The mean is over the *minibatch's* response tokens: `num_tokens` is the minibatch's count, so that the losses of
    its micro-batches add up to the same number however it is split. All tensors [B, T].
    """
    # Set unmarked entries to 0 first: masking only the result would still leak their NaN into the gradient.
    log_ratio = torch.where(response_mask, logprobs - old_logprobs, 0)
    ratio = log_ratio.exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    per_token = weights.detach() * torch.maximum(unclipped, clipped)
    is_clipped = (clipped > unclipped).detach()
    return PolicyLoss(
        loss=masked_sum(per_token, response_mask) / num_tokens,
        pg_clipfrac=masked_sum(is_clipped.to(ratio.dtype), response_mask) / num_tokens,
        approx_kl=masked_sum(0.5 * log_ratio.detach().square(), response_mask) / num_tokens,
    )
