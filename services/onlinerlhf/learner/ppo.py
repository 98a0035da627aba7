"""One PPO step: a batch of scored rollouts in, updated policy and value networks out.

Ouyang et al. 2022 (arXiv:2203.02155), appendix C.4, with the pretraining mix (PPO-ptx) and the moving average of the
weights. Units and formulas: `algorithms`. On several ranks each holds the whole batch and passes its share of the rows.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from onlinerlhf.algorithms.batching import PaddedBatch, ScoredRollout, pad_batch, split_minibatches
from onlinerlhf.algorithms.kl import adapted_kl_coef
from onlinerlhf.algorithms.policy_loss import policy_loss
from onlinerlhf.algorithms.pretraining import pretraining_loss
from onlinerlhf.algorithms.value_loss import value_loss
from onlinerlhf.core.errors import NonFiniteLoss, StartupError
from onlinerlhf.learner.ema import EMA
from onlinerlhf.learner.evidence import Evidence, Passes, weigh
from onlinerlhf.learner.forward import MicroBatch, micro_batch, response_logprobs, response_values
from onlinerlhf.learner.optimizer import Optimizer
from onlinerlhf.learner.ppo_config import PPOConfig
from onlinerlhf.learner.pretraining_mix import PretrainingMix
from onlinerlhf.learner.ranks import Ranks, all_finite
from onlinerlhf.learner.step_metrics import StepMetrics, UpdateMetrics, describe_step
from onlinerlhf.learner.tasks import Learn
from onlinerlhf.models.packed import pack, packed_token_logprobs
from onlinerlhf.models.policy import prepared

_log = logging.getLogger(__name__)


class PPO:
    """Owns the policy, its value network and their optimizers. `step` is all or nothing."""

    def __init__(
        self,
        *,
        policy: PreTrainedModel,
        reference: PreTrainedModel,
        value: PreTrainedModel | None,
        config: PPOConfig,
        mix: PretrainingMix | None = None,
        ranks: Ranks | None = None,
        base: str | None = None,
    ) -> None:
        """base: names what the policy's adapters sit on; None: its own weights are trained."""
        if config.has_critic != (value is not None):
            raise ValueError(
                f"{config.advantage_estimator} {'needs' if config.has_critic else 'takes no'} value network"
            )
        self.policy, self.reference, self.value = policy, reference, value
        self.config, self.mix, self.ranks = config, mix, ranks or Ranks()
        self.base = base
        self.num_steps = 0
        self.kl_coef = config.kl_coef
        self.generator = torch.Generator().manual_seed(config.seed)
        for model in filter(None, (policy, reference, value)):
            prepared(model)  # No dropout in any pass.
        reference.requires_grad_(requires_grad=False)
        self.policy_optimizer = Optimizer(policy, config, peak_learning_rate=config.learning_rate)
        self.value_optimizer = None
        if value is not None:
            self.value_optimizer = Optimizer(value, config, peak_learning_rate=config.value_learning_rate)
        decay = config.ema_decay
        self.ema = None if decay is None else EMA(self.policy_optimizer.parameters, decay=decay)
        _refuse_shared_parameters(policy, value)

    @property
    def optimizers(self) -> tuple[Optimizer, ...]:
        """The policy's, and the value network's where there is one."""
        return tuple(filter(None, (self.policy_optimizer, self.value_optimizer)))

    def step(self, rollouts: Sequence[ScoredRollout]) -> StepMetrics:
        """Learn from one batch. Whatever it raises (NonFiniteLoss, no memory), everything is as it was before.

        But StartupError: that could not be restored, and this process must not go on.
        """
        batch = pad_batch(rollouts, device=self.policy.device)
        with self.ranks.together(Learn(batch)):
            return self.learn(batch)

    def learn(self, batch: PaddedBatch) -> StepMetrics:
        """As `step`; with several ranks, all of them call it with the same batch."""
        # 1. Old logprobs, reference logprobs and values, by the policy and value net as the batch finds them.
        passes = Passes(
            old_logprobs=self._infer(self.policy, batch, response_logprobs),
            ref_logprobs=self._infer(self.reference, batch, response_logprobs),
            old_values=None if self.value is None else self._infer(self.value, batch, response_values),
        )
        # 2. Token rewards; advantages, whitened over the batch; the weights that correct for the sampler.
        evidence = weigh(batch, passes, self.config, kl_coef=self.kl_coef)
        # 3. One epoch of policy and value updates.
        with self._all_or_nothing():
            updates = self._updates(batch, evidence)
            # 4. Metrics.
            metrics = describe_step(batch, evidence, updates, kl_coef=self.kl_coef, has_mix=bool(self.mix))
        self.num_steps += 1
        # 5. The KL penalty of the next batch.
        self._adapt_kl_coef(metrics.kl_per_sequence_nats)
        return metrics

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Whatever ends the block early, weights, averages, optimizers, randomness and the mix are as before."""
        snapshots = [optimizer.snapshot() for optimizer in self.optimizers]
        averages = [shadow.clone() for shadow in self.ema.shadow] if self.ema else []
        position = self.mix.position if self.mix else 0
        generator, is_done = self.generator.get_state(), False
        try:
            yield
            is_done = True
        finally:
            if not is_done:
                try:
                    for optimizer, snapshot in zip(self.optimizers, snapshots, strict=True):
                        optimizer.restore(snapshot)
                    if self.ema:
                        self.ema.copy_from(averages)
                except RuntimeError as error:
                    # The device is gone. Weights halfway through a step must not be learned from.
                    raise StartupError(f"a failed step could not be undone: {error}") from error
                self.generator.set_state(generator)
                if self.mix:
                    self.mix.position = position

    @torch.no_grad()
    def _infer(
        self, model: PreTrainedModel, batch: PaddedBatch, passed: Callable[[PreTrainedModel, MicroBatch], Tensor]
    ) -> Tensor:
        """A pass without gradients over every row. [B, T]."""
        result = torch.zeros(batch.input_ids.shape, device=batch.input_ids.device)
        for rows in self._micro_batches(batch.lengths):
            micro = micro_batch(batch, rows)
            result[micro.rows, : micro.response_mask.shape[1]] = passed(model, micro)
        return self.ranks.sum(result)

    def _updates(self, batch: PaddedBatch, evidence: Evidence) -> list[UpdateMetrics]:
        """One epoch over the minibatches, or what of it the limit on the policy's movement allows."""
        updates: list[UpdateMetrics] = []
        minibatches = split_minibatches(len(batch), self.config.num_minibatches, generator=self.generator)
        for rows in minibatches:
            found = self._gather_gradients(batch, evidence, rows)
            if updates and self.config.max_update_kl_nats < found["approx_kl"] < math.inf:
                self._cut_short(len(updates), len(minibatches), found["approx_kl"])
                break
            updates.append(self._apply_gradients(found))
        if not all_finite([x for optimizer in self.optimizers for x in optimizer.parameters], self.ranks):
            raise NonFiniteLoss(f"not finite at step {self.num_steps + 1}: the updated weights")
        return updates

    def _cut_short(self, num_updates: int, num_minibatches: int, moved: float) -> None:
        for optimizer in self.optimizers:
            optimizer.drop_gradients()
        limit = self.config.max_update_kl_nats
        _log.warning(
            f"step {self.num_steps + 1} cut short after {num_updates} of {num_minibatches} updates: the policy has "
            f"moved {moved:.3f} nats a token from where the batch found it, more than max_update_kl_nats {limit:g}; "
            "lower learning_rate, or raise the limit",
            extra={"updates_left_out": num_minibatches - num_updates, "moved_nats_per_token": round(moved, 4)},
        )

    def _gather_gradients(self, batch: PaddedBatch, evidence: Evidence, rows: Sequence[int]) -> dict[str, float]:
        """A minibatch's gradients, over micro-batches and ranks. Returns its means."""
        num_tokens = int(batch.response_mask[list(rows)].sum())
        total = torch.zeros(len(UpdateMetrics.SUMMED), device=batch.input_ids.device)
        for places in self._micro_batches([batch.lengths[row] for row in rows]):
            micro = micro_batch(batch, [rows[place] for place in places])
            total[:3] += self._policy_gradient(micro, evidence, num_tokens)
            if self.value is not None:
                total[3:5] += self._value_gradient(self.value, micro, evidence, num_tokens)
        if self.mix:
            # Added to PPO's gradient rather than averaged with it: mixing must not shrink it.
            total[5] += self._pretraining_gradient(self.mix, len(rows) * self.config.ptx_examples_per_rollout)
        return dict(zip(UpdateMetrics.SUMMED, self.ranks.sum(total).tolist(), strict=True))

    def _apply_gradients(self, found: dict[str, float]) -> UpdateMetrics:
        """One optimizer step of the policy, and of the value network. Raises NonFiniteLoss."""
        policy_norm, *value_norms = (optimizer.clip_gradients() for optimizer in self.optimizers)
        checked = {**found, "policy gradient": policy_norm, "value gradient": sum(value_norms)}
        broken = [name for name, number in checked.items() if not math.isfinite(number)]
        if broken:
            raise NonFiniteLoss(f"not finite at step {self.num_steps + 1}: {', '.join(broken)}")
        learning_rate, *_ = [optimizer.step(self.num_steps) for optimizer in self.optimizers]
        if self.ema:
            self.ema.update()
        return UpdateMetrics(
            **found,
            policy_grad_norm=policy_norm,
            value_grad_norm=value_norms[0] if value_norms else None,
            learning_rate=learning_rate,
        )

    def _policy_gradient(self, micro: MicroBatch, evidence: Evidence, num_tokens: int) -> Tensor:
        """Returns the micro-batch's share of loss, clipped share and approximate KL."""
        policy = policy_loss(
            logprobs=response_logprobs(self.policy, micro),
            old_logprobs=micro.take(evidence.old_logprobs),
            advantages=micro.take(evidence.advantages),
            weights=micro.take(evidence.importance.weights),
            response_mask=micro.response_mask,
            clip_range=self.config.clip_range,
            num_tokens=num_tokens,
        )
        self._backward(policy.loss)
        return torch.stack([policy.loss.detach(), policy.pg_clipfrac, policy.approx_kl])

    def _value_gradient(self, model: PreTrainedModel, micro: MicroBatch, evidence: Evidence, num_tokens: int) -> Tensor:
        """Returns the micro-batch's share of loss and clipped share."""
        assert evidence.critique is not None  # noqa: S101 - there is one wherever there is a value network
        value = value_loss(
            values=response_values(model, micro),
            old_values=micro.take(evidence.critique.old_values),
            returns=micro.take(evidence.critique.returns),
            response_mask=micro.response_mask,
            clip_range=self.config.value_clip_range,
            num_tokens=num_tokens,
        )
        self._backward(value.loss)
        return torch.stack([value.loss.detach(), value.clipfrac])

    def _pretraining_gradient(self, mix: PretrainingMix, count: int) -> Tensor:
        """PPO-ptx's term for one minibatch. Returns this rank's share of its mean negative log-likelihood."""
        examples = mix.take(count)
        num_tokens = sum(len(example) - 1 for example in examples)
        nll = torch.zeros((), device=self.policy.device)
        for places in self._micro_batches([len(example) for example in examples]):
            packed = pack([examples[place] for place in places] or [[0]], device=self.policy.device)
            logprobs = packed_token_logprobs(self.policy, packed, packed.position_ids[0] > 0)
            self._backward(pretraining_loss(logprobs, coef=self.config.ptx_coef, num_tokens=num_tokens))
            nll -= logprobs.detach().sum() / num_tokens
        return nll

    def _micro_batches(self, lengths: Sequence[int]) -> list[list[int]]:
        return self.ranks.micro_batches(lengths, max_tokens=self.config.micro_batch_tokens)

    def _backward(self, loss: Tensor) -> None:
        # Sharded models average gradients over the ranks; ours are shares of one sum.
        (loss * self.ranks.size).backward()

    def _adapt_kl_coef(self, kl_per_sequence_nats: float) -> None:
        if self.config.kl_target_per_sequence_nats is not None:
            self.kl_coef = adapted_kl_coef(
                kl_coef=self.kl_coef,
                kl_per_sequence_nats=kl_per_sequence_nats,
                target_nats_per_sequence=self.config.kl_target_per_sequence_nats,
                gain=self.config.kl_adaptation_gain,
            )


def _refuse_shared_parameters(policy: PreTrainedModel, value: PreTrainedModel | None) -> None:
    ours = {id(parameter) for parameter in policy.parameters()}
    shared = ours & {id(parameter) for parameter in value.parameters()} if value is not None else set()
    if shared:
        raise ValueError(f"the value network shares {len(shared)} parameters with the policy")
