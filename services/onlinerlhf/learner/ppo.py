"""One PPO step: a batch of scored rollouts in, updated policy and value networks out.

Ouyang et al. 2022 (arXiv:2203.02155), appendix C.4, without the pretraining mix. Units and formulas: `algorithms`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from onlinerlhf.algorithms.advantages import gae, whiten_advantages
from onlinerlhf.algorithms.batching import PaddedBatch, ScoredRollout, length_buckets, pad_batch, split_minibatches
from onlinerlhf.algorithms.policy_loss import ImportanceWeights, importance_weights, policy_loss
from onlinerlhf.algorithms.rewards import kl_per_token, token_rewards
from onlinerlhf.algorithms.value_loss import value_loss
from onlinerlhf.core.errors import NonFiniteLoss, StartupError
from onlinerlhf.learner.forward import MicroBatch, micro_batch, response_logprobs, response_values
from onlinerlhf.learner.optimizer import Optimizer
from onlinerlhf.learner.ppo_config import PPOConfig
from onlinerlhf.learner.step_metrics import StepMetrics, UpdateMetrics, describe_step


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a batch's updates learn from; fixed before the first of them. All [B, T], 0 outside the response."""

    old_logprobs: Tensor
    old_values: Tensor
    kl: Tensor
    """Per token, nats, against the reference policy."""
    advantages: Tensor
    """Whitened."""
    returns: Tensor
    importance: ImportanceWeights


class PPO:
    """Owns the policy, its value network and their optimizers. `step` is all or nothing."""

    def __init__(
        self, *, policy: PreTrainedModel, reference: PreTrainedModel, value: PreTrainedModel, config: PPOConfig
    ) -> None:
        shared = {id(parameter) for parameter in policy.parameters()} & {id(x) for x in value.parameters()}
        if shared:
            raise ValueError(f"the value network shares {len(shared)} parameters with the policy")
        self.policy, self.reference, self.value = policy, reference, value
        self.config = config
        self.num_steps = 0
        self.generator = torch.Generator().manual_seed(config.seed)
        for model in (policy, reference, value):
            model.eval()  # No dropout in any pass.
        reference.requires_grad_(requires_grad=False)
        self.policy_optimizer = Optimizer(policy, config, peak_learning_rate=config.learning_rate)
        self.value_optimizer = Optimizer(value, config, peak_learning_rate=config.value_learning_rate)

    def step(self, rollouts: Sequence[ScoredRollout]) -> StepMetrics:
        """Learn from one batch. Whatever it raises (NonFiniteLoss, no memory), everything is as it was before.

        But StartupError: that could not be restored, and this process must not go on.
        """
        # 1. Pad the batch.
        batch = pad_batch(rollouts, device=self.policy.device)
        # 2. Old logprobs, reference logprobs and values, by the policy and value net as the batch finds them.
        old_logprobs = self._infer(self.policy, batch, response_logprobs)
        ref_logprobs = self._infer(self.reference, batch, response_logprobs)
        old_values = self._infer(self.value, batch, response_values)
        # 3. and 4. Token rewards; GAE, whitened; the weights that correct for the sampler.
        evidence = self._weigh(batch, old_logprobs=old_logprobs, ref_logprobs=ref_logprobs, old_values=old_values)
        # 5. One epoch of policy and value updates.
        with self._all_or_nothing():
            updates = [self._update(batch, evidence, rows) for rows in self._minibatches(batch)]
            self._check_weights()
            # 6. Metrics.
            metrics = describe_step(batch, evidence, updates, config=self.config)
        self.num_steps += 1
        return metrics

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Whatever ends the block early, weights, optimizers and randomness are as before."""
        policy, value = self.policy_optimizer.snapshot(), self.value_optimizer.snapshot()
        generator, is_done = self.generator.get_state(), False
        try:
            yield
            is_done = True
        finally:
            if not is_done:
                try:
                    self.policy_optimizer.restore(policy)
                    self.value_optimizer.restore(value)
                except RuntimeError as error:
                    # The device is gone. Weights halfway through a step must not be learned from.
                    raise StartupError(f"a failed step could not be undone: {error}") from error
                self.generator.set_state(generator)

    @torch.inference_mode()
    def _infer(
        self, model: PreTrainedModel, batch: PaddedBatch, passed: Callable[[PreTrainedModel, MicroBatch], Tensor]
    ) -> Tensor:
        """A pass without gradients over every row. [B, T]."""
        result = torch.zeros(batch.input_ids.shape, device=batch.input_ids.device)
        for rows in length_buckets(batch.lengths, max_tokens=self.config.micro_batch_tokens):
            micro = micro_batch(batch, rows)
            result[micro.rows, : micro.input_ids.shape[1]] = passed(model, micro)
        return result

    def _weigh(self, batch: PaddedBatch, *, old_logprobs: Tensor, ref_logprobs: Tensor, old_values: Tensor) -> Evidence:
        config, mask = self.config, batch.response_mask
        kl = kl_per_token(logprobs=old_logprobs, ref_logprobs=ref_logprobs, response_mask=mask)
        rewards = token_rewards(scores=batch.scores, kl=kl, response_mask=mask, kl_coef=config.kl_coef)
        advantages, returns = gae(
            rewards=rewards, values=old_values, response_mask=mask, gamma=config.gamma, lambda_=config.gae_lambda
        )
        importance = importance_weights(
            old_logprobs=old_logprobs,
            behaviour_logprobs=batch.behaviour_logprobs,
            response_mask=mask,
            max_weight=config.max_is_weight,
        )
        return Evidence(
            old_logprobs=old_logprobs,
            old_values=old_values,
            kl=kl,
            advantages=whiten_advantages(advantages, mask),
            returns=returns,
            importance=importance,
        )

    def _minibatches(self, batch: PaddedBatch) -> tuple[tuple[int, ...], ...]:
        return split_minibatches(len(batch), self.config.num_minibatches, generator=self.generator)

    def _update(self, batch: PaddedBatch, evidence: Evidence, rows: Sequence[int]) -> UpdateMetrics:
        """One optimizer step of policy and value net on a minibatch, its gradient gathered over micro-batches."""
        num_tokens = int(batch.response_mask[list(rows)].sum())
        total = torch.zeros(len(UpdateMetrics.SUMMED), device=batch.input_ids.device)
        for bucket in length_buckets([batch.lengths[row] for row in rows], max_tokens=self.config.micro_batch_tokens):
            micro = micro_batch(batch, [rows[place] for place in bucket])
            total += self._accumulate(micro, evidence, num_tokens)
        policy_norm, value_norm = self.policy_optimizer.clip_gradients(), self.value_optimizer.clip_gradients()
        numbers = dict(zip(UpdateMetrics.SUMMED, total.tolist(), strict=True))
        checked = {**numbers, "policy gradient": policy_norm, "value gradient": value_norm}
        broken = [name for name, number in checked.items() if not math.isfinite(number)]
        if broken:
            raise NonFiniteLoss(f"not finite at step {self.num_steps + 1}: {', '.join(broken)}")
        learning_rate = self.policy_optimizer.step(self.num_steps)
        self.value_optimizer.step(self.num_steps)
        return UpdateMetrics(
            **numbers, policy_grad_norm=policy_norm, value_grad_norm=value_norm, learning_rate=learning_rate
        )

    def _check_weights(self) -> None:
        for parameter in (*self.policy_optimizer.parameters, *self.value_optimizer.parameters):
            if not bool(parameter.isfinite().all()):
                raise NonFiniteLoss(f"not finite at step {self.num_steps + 1}: the updated weights")

    def _accumulate(self, micro: MicroBatch, evidence: Evidence, num_tokens: int) -> Tensor:
        """Add a micro-batch's gradients. Returns its share of the minibatch's means, in the order of SUMMED."""
        policy = policy_loss(
            logprobs=response_logprobs(self.policy, micro),
            old_logprobs=micro.take(evidence.old_logprobs),
            advantages=micro.take(evidence.advantages),
            weights=micro.take(evidence.importance.weights),
            response_mask=micro.response_mask,
            clip_range=self.config.clip_range,
            num_tokens=num_tokens,
        )
        policy.loss.backward()
        value = value_loss(
            values=response_values(self.value, micro),
            old_values=micro.take(evidence.old_values),
            returns=micro.take(evidence.returns),
            response_mask=micro.response_mask,
            clip_range=self.config.value_clip_range,
            num_tokens=num_tokens,
        )
        value.loss.backward()
        return torch.stack(
            [policy.loss.detach(), policy.pg_clipfrac, policy.approx_kl, value.loss.detach(), value.clipfrac]
        )
