"""From which models and data PPO starts, and how they are laid out on the machine."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from onlinerlhf.learner.ppo_config import PPOConfig


class RecipeConfig(PPOConfig):
    """What it takes to build a `PPO`: shared by the learner's service and `onlinerlhf train ppo`."""

    policy_dir: Path
    """Where the policy starts: a transformers directory."""
    reward_dir: Path | None = None
    """Where the value network starts: a reward model's directory. Only advantage_estimator gae has a value network."""
    reference_dir: Path | None = None
    """The frozen policy that KL is measured against. Default: policy_dir."""
    ptx_data: Path | None = None
    """Pretraining texts to mix in (PPO-ptx): JSON lines or Parquet with a field `text`. None: plain PPO."""
    ptx_max_tokens: int = Field(default=1024, ge=2)
    """A longer text is cut."""
    num_threads: int = Field(default=0, ge=0)
    """Of torch. 0: torch's own choice."""
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    deterministic: bool = False
    """Only operations whose results are the same every time: slower on a GPU; a resumed run is bit-identical."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of passes and gradients' way back; weights, moments and sums over ranks are float32 either way."""
    activation_checkpointing: bool = False
    """Keep a layer's input only and compute the rest again in the backward pass: less memory, about a third slower."""
    lora_rank: int = Field(default=0, ge=0)
    """Train low-rank adapters of the policy instead of its weights; they are merged into what is published. 0: off."""
    lora_alpha: float = Field(default=16.0, gt=0)
    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear layers that get an adapter."""
    collective_timeout_seconds: float = Field(default=600.0, gt=0)
    """How long one rank waits for another within a pass, and for all to come up, before it gives up."""

    @model_validator(mode="after")
    def _a_critic_starts_somewhere(self) -> Self:
        if self.has_critic and self.reward_dir is None:
            raise ValueError("reward_dir is required: advantage_estimator gae starts its value network there")
        return self
