"""What one PPO step reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from onlinerlhf.algorithms.batching import PaddedBatch
from onlinerlhf.algorithms.masking import masked_mean, masked_var
from onlinerlhf.algorithms.rewards import kl_per_sequence
from onlinerlhf.learner.ppo_config import PPOConfig

if TYPE_CHECKING:
    from onlinerlhf.learner.ppo import Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateMetrics:
    """One minibatch's update; means over its response tokens."""

    policy_loss: float
    pg_clipfrac: float
    approx_kl: float
    value_loss: float
    value_clipfrac: float
    policy_grad_norm: float
    """Before clipping."""
    value_grad_norm: float
    learning_rate: float

    SUMMED: ClassVar[tuple[str, ...]] = ("policy_loss", "pg_clipfrac", "approx_kl", "value_loss", "value_clipfrac")
    """Those that micro-batches add up to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMetrics:
    """One PPO step. Means over the batch's rollouts or response tokens; losses, norms: mean over the minibatches."""

    num_rollouts: int
    response_tokens: int
    response_tokens_mean: float
    score_mean: float
    score_std: float
    kl_per_sequence_nats: float
    """KL to the reference summed over a response's tokens, mean over the responses."""
    reward_mean: float
    """score - kl_coef * KL of the sequence: what PPO maximises."""
    entropy: float
    """Mean of -log pi over the sampled tokens, nats a token: a one-sample estimate."""
    is_weight_mean: float
    is_weight_max: float
    """Before truncation."""
    is_weight_clipped_share: float
    policy_loss: float
    value_loss: float
    pg_clipfrac: float
    value_clipfrac: float
    approx_kl: float
    policy_grad_norm: float
    value_grad_norm: float
    learning_rate: float
    explained_variance: float
    """1 - var(returns - values) / var(returns), values before the updates."""
    value_mean: float
    return_mean: float


def describe_step(
    batch: PaddedBatch, evidence: "Evidence", updates: Sequence[UpdateMetrics], *, config: PPOConfig
) -> StepMetrics:
    """Gather a step's numbers."""
    mask = batch.response_mask
    kl = kl_per_sequence(kl=evidence.kl, response_mask=mask)  # [B]
    returns_variance = masked_var(evidence.returns, mask)
    unexplained = masked_var(evidence.returns - evidence.old_values, mask)

    def mean(name: str) -> float:
        return float(sum(getattr(update, name) for update in updates) / len(updates))

    return StepMetrics(
        num_rollouts=len(batch),
        response_tokens=batch.num_response_tokens,
        response_tokens_mean=batch.num_response_tokens / len(batch),
        score_mean=batch.scores.mean().item(),
        score_std=batch.scores.std(correction=0).item(),
        kl_per_sequence_nats=kl.mean().item(),
        reward_mean=(batch.scores - config.kl_coef * kl).mean().item(),
        entropy=-masked_mean(evidence.old_logprobs, mask).item(),
        is_weight_mean=evidence.importance.mean,
        is_weight_max=evidence.importance.maximum,
        is_weight_clipped_share=evidence.importance.clipped_share,
        policy_loss=mean("policy_loss"),
        value_loss=mean("value_loss"),
        pg_clipfrac=mean("pg_clipfrac"),
        value_clipfrac=mean("value_clipfrac"),
        approx_kl=mean("approx_kl"),
        policy_grad_norm=mean("policy_grad_norm"),
        value_grad_norm=mean("value_grad_norm"),
        learning_rate=mean("learning_rate"),
        explained_variance=(1 - unexplained / torch.clamp(returns_variance, min=1e-8)).item(),
        value_mean=masked_mean(evidence.old_values, mask).item(),
        return_mean=masked_mean(evidence.returns, mask).item(),
    )
