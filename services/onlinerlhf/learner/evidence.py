"""From scores, KL and values to what a batch's updates learn from. Formulas and units: `algorithms`."""

from dataclasses import dataclass

import torch
from torch import Tensor

from onlinerlhf.algorithms.advantages import gae, grpo_advantages, rloo_advantages, whiten_advantages
from onlinerlhf.algorithms.batching import PaddedBatch
from onlinerlhf.algorithms.kl import KLEstimates, kl_estimates
from onlinerlhf.algorithms.policy_loss import ImportanceWeights, importance_weights
from onlinerlhf.algorithms.rewards import kl_per_sequence, missing_eos_scores, token_rewards, whiten_rewards
from onlinerlhf.learner.ppo_config import PPOConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """Before the first update: by the policy, its reference and the value network. All [B, T], 0 off the response."""

    old_logprobs: Tensor
    ref_logprobs: Tensor
    old_values: Tensor | None
    """None: there is no value network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Critique:
    """What the value network learns from. [B, T]."""

    old_values: Tensor
    returns: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a batch's updates learn from; fixed before the first of them. All [B, T], 0 outside the response."""

    old_logprobs: Tensor
    kl: KLEstimates
    """Against the reference policy; the penalty is k1."""
    scores: Tensor
    """[B]: the reward model's, missing EOS seen to."""
    advantages: Tensor
    importance: ImportanceWeights
    critique: Critique | None


def weigh(batch: PaddedBatch, passes: Passes, config: PPOConfig, *, kl_coef: float) -> Evidence:
    """Token or sequence rewards, advantages over the whole batch, and the weights that correct for the sampler."""
    mask = batch.response_mask
    kl = kl_estimates(logprobs=passes.old_logprobs, ref_logprobs=passes.ref_logprobs, response_mask=mask)
    scores = missing_eos_scores(
        scores=batch.scores,
        is_finished=batch.is_finished,
        replace_with=config.missing_eos_replace,
        penalty=config.missing_eos_penalty,
    )
    if passes.old_values is None:
        critique, advantages = None, _of_groups(batch, scores, kl, config, kl_coef=kl_coef)
    else:
        critique, advantages = _of_critic(batch, scores, kl, passes.old_values, config, kl_coef=kl_coef)
    return Evidence(
        old_logprobs=passes.old_logprobs,
        kl=kl,
        scores=scores,
        advantages=advantages,
        importance=importance_weights(
            old_logprobs=passes.old_logprobs,
            behaviour_logprobs=batch.behaviour_logprobs,
            response_mask=mask,
            max_weight=config.max_is_weight,
        ),
        critique=critique,
    )


def _of_critic(
    batch: PaddedBatch, scores: Tensor, kl: KLEstimates, values: Tensor, config: PPOConfig, *, kl_coef: float
) -> tuple[Critique, Tensor]:
    mask = batch.response_mask
    rewards = token_rewards(scores=scores, kl=kl.k1, response_mask=mask, kl_coef=kl_coef)
    if config.whiten_rewards:
        rewards = whiten_rewards(rewards, mask)
    advantages, returns = gae(
        rewards=rewards, values=values, response_mask=mask, gamma=config.gamma, lambda_=config.gae_lambda
    )
    return Critique(old_values=values, returns=returns), whiten_advantages(advantages, mask)


def _of_groups(batch: PaddedBatch, scores: Tensor, kl: KLEstimates, config: PPOConfig, *, kl_coef: float) -> Tensor:
    rewards = scores - kl_coef * kl_per_sequence(kl=kl.k1, response_mask=batch.response_mask)
    estimate = {"rloo": rloo_advantages, "grpo": grpo_advantages}[config.advantage_estimator]
    advantages: Tensor = estimate(sequence_rewards=rewards, groups=batch.groups, response_mask=batch.response_mask)
    return advantages.to(torch.float32)
