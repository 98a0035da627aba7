"""What one PPO step reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from onlinerlhf.algorithms.batching import PaddedBatch
from onlinerlhf.algorithms.masking import masked_mean, masked_var
from onlinerlhf.algorithms.rewards import kl_per_sequence
from onlinerlhf.learner.evidence import Critique, Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateMetrics:
    """One minibatch's update; means over its response tokens."""

    policy_loss: float
    pg_clipfrac: float
    approx_kl: float
    value_loss: float
    value_clipfrac: float
    ptx_nll: float
    """Of the pretraining mix, nats a token, before its coefficient."""
    policy_grad_norm: float
    """Before clipping."""
    value_grad_norm: float | None
    learning_rate: float

    SUMMED: ClassVar[tuple[str, ...]] = (
        "policy_loss",
        "pg_clipfrac",
        "approx_kl",
        "value_loss",
        "value_clipfrac",
        "ptx_nll",
    )
    """Those that micro-batches add up to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMetrics:
    """One PPO step. Means over the batch's rollouts or response tokens; losses, norms: mean over the updates.

    None: there is no such number, as there is no value network or no pretraining mix.
    """

    num_rollouts: int
    response_tokens: int
    response_tokens_mean: float
    finished_share: float
    """Of the responses that ended by themselves."""
    score_mean: float
    """By the reward model, missing EOS seen to."""
    score_std: float
    kl_per_sequence_nats: float
    """KL to the reference (k1) summed over a response's tokens, mean over the responses."""
    kl_k3_per_token_nats: float
    """Its low-variance estimate k3, mean over the response tokens."""
    kl_coef: float
    reward_mean: float
    """score - kl_coef * KL of the sequence: what PPO maximises."""
    entropy: float
    """Mean of -log pi over the sampled tokens, nats a token: a one-sample estimate."""
    is_weight_mean: float
    is_weight_max: float
    """Before truncation."""
    is_weight_clipped_share: float
    num_updates: int
    """Fewer than minibatches when the step was cut short."""
    policy_loss: float
    pg_clipfrac: float
    approx_kl: float
    policy_grad_norm: float
    learning_rate: float
    ptx_nll: float | None
    """Of the pretraining mix, nats a token."""
    value_loss: float | None
    value_clipfrac: float | None
    value_grad_norm: float | None
    explained_variance: float | None
    """1 - var(returns - values) / var(returns), values before the updates."""
    value_mean: float | None
    return_mean: float | None


def describe_step(
    batch: PaddedBatch, evidence: Evidence, updates: Sequence[UpdateMetrics], *, kl_coef: float, has_mix: bool
) -> StepMetrics:
    """Gather a step's numbers."""
    mask = batch.response_mask
    kl = kl_per_sequence(kl=evidence.kl.k1, response_mask=mask)  # [B]

    def mean(name: str) -> float:
        return float(sum(getattr(update, name) for update in updates) / len(updates))

    def of_values(name: str) -> float | None:
        return None if evidence.critique is None else mean(name)

    return StepMetrics(
        num_rollouts=len(batch),
        response_tokens=batch.num_response_tokens,
        response_tokens_mean=batch.num_response_tokens / len(batch),
        finished_share=batch.is_finished.float().mean().item(),
        score_mean=evidence.scores.mean().item(),
        score_std=evidence.scores.std(correction=0).item(),
        kl_per_sequence_nats=kl.mean().item(),
        kl_k3_per_token_nats=masked_mean(evidence.kl.k3, mask).item(),
        kl_coef=kl_coef,
        reward_mean=(evidence.scores - kl_coef * kl).mean().item(),
        entropy=-masked_mean(evidence.old_logprobs, mask).item(),
        is_weight_mean=evidence.importance.mean,
        is_weight_max=evidence.importance.maximum,
        is_weight_clipped_share=evidence.importance.clipped_share,
        num_updates=len(updates),
        policy_loss=mean("policy_loss"),
        pg_clipfrac=mean("pg_clipfrac"),
        approx_kl=mean("approx_kl"),
        policy_grad_norm=mean("policy_grad_norm"),
        learning_rate=mean("learning_rate"),
        ptx_nll=mean("ptx_nll") if has_mix else None,
        value_loss=of_values("value_loss"),
        value_clipfrac=of_values("value_clipfrac"),
        value_grad_norm=of_values("value_grad_norm"),
        **_of_critique(evidence.critique, mask),
    )


def _of_critique(critique: Critique | None, mask: Tensor) -> dict[str, float | None]:
    if critique is None:
        return dict.fromkeys(("explained_variance", "value_mean", "return_mean"))
    returns_variance = masked_var(critique.returns, mask)
    unexplained = masked_var(critique.returns - critique.old_values, mask)
    return {
        "explained_variance": (1 - unexplained / torch.clamp(returns_variance, min=1e-8)).item(),
        "value_mean": masked_mean(critique.old_values, mask).item(),
        "return_mean": masked_mean(critique.returns, mask).item(),
    }
