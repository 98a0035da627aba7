"""The reward of each token: the reward model's score at the end, less the KL penalty on the way.

Source: Ouyang et al. 2022 (arXiv:2203.02155), section 3.5; Ziegler et al. 2019 (arXiv:1909.08593), equation 2.
"""

import torch
from torch import Tensor

from onlinerlhf.algorithms.masking import masked_row_sum


def kl_per_token(*, logprobs: Tensor, ref_logprobs: Tensor, response_mask: Tensor) -> Tensor:
    """k_t = log pi(y_t|.) - log pi_ref(y_t|.), nats; 0 outside the response.

    A one-sample estimate of the KL divergence; single tokens may be negative. `logprobs` are those of the policy at
    the start of the batch. All [B, T] -> [B, T].
    """
    return torch.where(response_mask, logprobs - ref_logprobs, 0)


def token_rewards(*, scores: Tensor, kl: Tensor, response_mask: Tensor, kl_coef: float) -> Tensor:
    """r_t = -kl_coef * k_t, plus the score on the row's last response token; 0 outside the response.

    scores: [B] (the reward model's, a sequence); kl: [B, T] nats; response_mask: [B, T] -> [B, T].
    """
    rewards = torch.where(response_mask, -kl_coef * kl, 0)
    return rewards + scores.unsqueeze(1) * last_token_mask(response_mask)


def last_token_mask(response_mask: Tensor) -> Tensor:
    """True at each row's last response token only. [B, T] bool -> [B, T] bool."""
    is_followed = torch.zeros_like(response_mask)
    is_followed[:, :-1] = response_mask[:, 1:]
    return response_mask & ~is_followed


def kl_per_sequence(*, kl: Tensor, response_mask: Tensor) -> Tensor:
    """The sum over each row's response tokens, nats per *sequence*. [B, T] -> [B]."""
    return masked_row_sum(kl, response_mask)
