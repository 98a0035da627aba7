"""The reward of each token: the reward model's score at the end, less the KL penalty on the way.

Sources: Ouyang et al. 2022 (arXiv:2203.02155), section 3.5; Ziegler et al. 2019 (arXiv:1909.08593), equation 2. For
responses without EOS: Huang et al. 2024 (arXiv:2403.17031).
"""

import torch
from torch import Tensor

from onlinerlhf.algorithms.masking import masked_row_sum, masked_scale


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


def missing_eos_scores(
    *, scores: Tensor, is_finished: Tensor, replace_with: float | None = None, penalty: float = 0.0
) -> Tensor:
    """Scores with those of unfinished responses (cut off before EOS) replaced, or lowered; never both.

    - replace_with: an unfinished response's score *becomes* this number, whatever the reward model said.
    - penalty: this much is *subtracted*, so that a better unfinished response still scores above a worse one.

    Neither: as they were. scores: [B]; is_finished: [B] bool, from the finish reason, never from the length -> [B].
    """
    if replace_with is not None and penalty:
        raise ValueError("a missing EOS is either replaced or penalised: give replace_with or penalty, not both")
    if penalty < 0:
        raise ValueError(f"the penalty is subtracted and must not be negative, got {penalty}")
    unfinished = scores - penalty if replace_with is None else torch.full_like(scores, replace_with)
    return torch.where(is_finished, scores, unfinished)


def whiten_rewards(rewards: Tensor, response_mask: Tensor) -> Tensor:
    """Variance 1 over all response tokens of the *batch*, *without* a shift of the mean. [B, T] -> [B, T].

    A shift would take the batch's mean out of every token: a KL penalty that all tokens share would vanish, and each
    token would be paid the same for being there, so that long responses got more of it than short ones.
    """
    return masked_scale(rewards, response_mask)
