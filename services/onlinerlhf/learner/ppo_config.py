"""The hyperparameters of a PPO step. Defaults: Ouyang et al. 2022, appendix C.4."""

from typing import Literal, Self

from pydantic import Field, model_validator

from onlinerlhf.runtime.config import Section


class PPOConfig(Section):
    """What `PPO` needs to know; the learner's `[learner]` section holds these keys beside its own."""

    num_minibatches: int = Field(default=8, ge=1)
    """A batch is split into this many; one policy and one value update each."""
    micro_batch_tokens: int = Field(default=8192, ge=1)
    """Most tokens of one pass; bounds memory and does not change the result."""
    clip_range: float = Field(default=0.2, gt=0)
    value_clip_range: float = Field(default=0.2, gt=0)
    max_is_weight: float = Field(default=2.0, gt=0)
    """Where the weight that corrects for an older sampling policy is truncated."""
    max_update_kl_nats: float = Field(default=0.5, gt=0)
    """A step's remaining updates are left out once those before have moved the policy this far, in nats a token
    (0.5 (log pi - log pi_old)^2, mean of the minibatch): ordinary steps stay below a hundredth of it."""

    advantage_estimator: Literal["gae", "rloo", "grpo"] = "gae"
    """gae: with a value network. rloo, grpo: without one, from the other responses to the same prompt."""
    gamma: float = Field(default=1.0, ge=0, le=1)
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    whiten_rewards: bool = False
    """Scale token rewards to variance 1 over the batch, the mean left where it is."""

    kl_coef: float = Field(default=0.02, ge=0)
    """Reward per nat of KL to the reference policy; where it starts when `kl_target_per_sequence_nats` is set."""
    kl_target_per_sequence_nats: float | None = Field(default=None, gt=0)
    """Adapt kl_coef towards this KL, summed over a response and averaged over the batch. None: kl_coef is fixed."""
    kl_adaptation_gain: float = Field(default=0.1, gt=0)
    missing_eos_replace: float | None = None
    """A response that was cut off gets this score whatever the reward model said."""
    missing_eos_penalty: float = Field(default=0.0, ge=0)
    """A response that was cut off gets this much less than the reward model said."""

    ptx_coef: float = Field(default=27.8, ge=0)
    """PPO-ptx: weight of the pretraining log-likelihood (mean nats a token), where there is a pretraining mix."""
    ptx_examples_per_rollout: int = Field(default=8, ge=1)
    ema_decay: float | None = Field(default=0.992, ge=0, lt=1)
    """Of the moving average of the policy's weights, by optimizer step. None: no average is kept."""

    learning_rate: float = Field(default=9.65e-6, gt=0)
    """Peak, of the policy."""
    value_learning_rate: float = Field(default=9e-6, gt=0)
    """Peak, of the value network."""
    warmup_steps: int = Field(default=10, ge=0)
    """PPO steps over which the learning rates rise from a tenth of their peaks."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    adam_beta2: float = Field(default=0.95, ge=0, lt=1)
    adam_epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients of a minibatch are scaled down to this norm, the policy's and the value network's each."""
    seed: int = 0
    """Of the split into minibatches and the order of the pretraining mix."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.missing_eos_replace is not None and self.missing_eos_penalty:
            raise ValueError("missing_eos_replace and missing_eos_penalty exclude each other: choose one")
        if self.whiten_rewards and not self.has_critic:
            raise ValueError(f"whiten_rewards is for token rewards; {self.advantage_estimator} takes one a sequence")
        return self

    @property
    def has_critic(self) -> bool:
        """Whether there is a value network."""
        return self.advantage_estimator == "gae"
