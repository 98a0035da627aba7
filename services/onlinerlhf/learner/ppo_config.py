"""The hyperparameters of a PPO step. Defaults: Ouyang et al. 2022, appendix C.4."""

from pydantic import BaseModel, ConfigDict, Field


class PPOConfig(BaseModel):
    """What `PPO` needs to know; the learner's `[learner]` section holds these keys beside its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_minibatches: int = Field(default=8, ge=1)
    """A batch is split into this many; one policy and one value update each."""
    micro_batch_tokens: int = Field(default=8192, ge=1)
    """Most positions (padding included) of one pass; bounds memory and does not change the result."""
    clip_range: float = Field(default=0.2, gt=0)
    value_clip_range: float = Field(default=0.2, gt=0)
    kl_coef: float = Field(default=0.02, ge=0)
    """Reward per nat of KL to the reference policy."""
    gamma: float = Field(default=1.0, ge=0, le=1)
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    max_is_weight: float = Field(default=2.0, gt=0)
    """Where the weight that corrects for an older sampling policy is truncated."""
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
    """Of the split into minibatches."""
