"""How far the policy is from its reference: estimates from the sampled tokens, and the controller that holds a target.

Sources: Schulman 2020, "Approximating KL divergence" (the estimators k1, k2, k3); Ziegler et al. 2019
(arXiv:1909.08593), section 2.2 (the controller).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class KLEstimates:
    """One-sample estimates of KL(pi || pi_ref) at each response token. All [B, T], nats; 0 outside the response."""

    k1: Tensor
    """-log r: unbiased, high variance, may be negative. The penalty of `token_rewards`."""
    k2: Tensor
    """(log r)^2 / 2: never negative, biased, low variance."""
    k3: Tensor
    """exp(log r) - 1 - log r: never negative, unbiased."""


def kl_estimates(*, logprobs: Tensor, ref_logprobs: Tensor, response_mask: Tensor) -> KLEstimates:
    """k1, k2 and k3 of tokens sampled from pi, with log r_t = log pi_ref(y_t|.) - log pi(y_t|.), nats.

    All [B, T]. Sum over a row for nats per sequence.
    """
    # Unmarked entries become 0 before anything else: exp of what they hold could leak into a gradient.
    log_ratio = torch.where(response_mask, ref_logprobs - logprobs, 0)
    return KLEstimates(
        k1=-log_ratio,
        k2=0.5 * log_ratio.square(),
        k3=torch.expm1(log_ratio) - log_ratio,
    )


def adapted_kl_coef(
    *,
    kl_coef: float,
    kl_per_sequence_nats: float,
    target_nats_per_sequence: float,
    gain: float = 0.1,
    max_error: float = 0.2,
) -> float:
    """The KL coefficient of the next batch: e = clip((KL - target) / target, -0.2, 0.2); coef' = coef (1 + gain e).

    KL and target are in nats per *sequence* (the sum over a response's tokens, averaged over the batch), not per
    token: the two differ by the response's length. The coefficient is in reward per nat.
    """
    if target_nats_per_sequence <= 0:
        raise ValueError(f"the KL target must be above 0 nats per sequence, got {target_nats_per_sequence}")
    error = (kl_per_sequence_nats - target_nats_per_sequence) / target_nats_per_sequence
    return kl_coef * (1 + gain * min(max(error, -max_error), max_error))
