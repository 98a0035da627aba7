"""Reward model loss over ranked responses (Ouyang et al. 2022, equation 1)."""

from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceStats:
    """What a batch of rankings says about the reward model. Plain numbers, averaged over prompts."""

    loss: float
    pair_accuracy: float
    """Share of pairs in which the preferred response has the higher score."""


def preference_loss(
    scores: torch.Tensor,  # [N, K]
    pair_mask: torch.Tensor,  # [N, K, K] bool, True at (w, l): response w was preferred to response l
) -> tuple[torch.Tensor, PreferenceStats]:
    """-1/|pairs| sum over pairs of log sigmoid(r_w - r_l), in nats, averaged over the N prompts.

    All pairs of one prompt are one batch element: with a full ranking |pairs| = K(K-1)/2, so a prompt with many
    ranked responses weighs as much as one with few. Ties and missing responses are pairs left out of the mask; every
    prompt must keep at least one. Scores of responses in no pair never influence the result, be they NaN.
    """
    num_pairs = pair_mask.sum(dim=(1, 2))  # [N]
    if bool((num_pairs == 0).any()):
        raise ValueError("every prompt needs at least one preferred pair")
    in_a_pair = pair_mask.any(dim=1) | pair_mask.any(dim=2)  # [N, K]
    scores = torch.where(in_a_pair, scores, 0)
    gaps = scores[:, :, None] - scores[:, None, :]  # [N, K, K]
    per_prompt = -(logsigmoid(gaps) * pair_mask).sum(dim=(1, 2)) / num_pairs  # [N]
    right = ((gaps > 0) & pair_mask).sum(dim=(1, 2)) / num_pairs
    loss = per_prompt.mean()
    return loss, PreferenceStats(loss=float(loss.detach()), pair_accuracy=float(right.mean()))


def ranking_pairs(
    ranks: torch.Tensor,  # [N, K] long, 0 is best, equal numbers are ties, negative means no response
) -> torch.Tensor:  # [N, K, K] bool
    """The pair mask of full or partial rankings."""
    there = ranks >= 0
    return (ranks[:, :, None] < ranks[:, None, :]) & there[:, :, None] & there[:, None, :]
