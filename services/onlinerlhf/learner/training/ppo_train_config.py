"""Settings of `onlinerlhf train ppo`. Defaults of the recipe: Ouyang et al. 2022, appendix C.4."""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from onlinerlhf.learner.recipe_config import RecipeConfig
from onlinerlhf.learner.training.config import DEVICES, Settings

# Where things lie: a training is told from another by what they hold. And what changes no weight.
_ELSEWHERE = {"policy_dir", "reward_dir", "reference_dir", "ptx_data", "prompts", "output_dir"} | {
    "collective_timeout_seconds"
}


class PPOTrainConfig(RecipeConfig, Settings):
    """What offline PPO needs beside the recipe: prompts, how to sample responses, and when to save."""

    prompts: tuple[Path, ...] = Field(min_length=1)
    """JSON Lines or Parquet with a field `prompt`."""
    reward_dir: Path
    """What scores the responses, whatever estimates the advantages; and where the value network starts."""
    output_dir: Path
    device: str = Field(default="auto", pattern=DEVICES)
    """auto: a GPU if there is one."""
    epochs: int = Field(default=4, ge=1)
    """Each prompt is answered this often times `num_responses`; the last batch is filled from the epoch after."""
    max_steps: int = Field(default=0, ge=0)
    """Stop after this many steps. 0: as `epochs` says."""
    batch_size: int = Field(default=512, ge=1)
    """Rollouts of one PPO step."""
    num_responses: int = Field(default=1, ge=1)
    """To each prompt of a batch; rloo and grpo compare them."""
    temperature: float = Field(default=1.0, gt=0)
    """Of sampling; the learner's passes divide their logits by it, too."""
    max_prompt_tokens: int = Field(default=1000, ge=1)
    max_response_tokens: int = Field(default=1000, ge=1)
    """A response is cut off there. The end token counts."""
    sampled_together: int = Field(default=256, ge=1)
    """Most responses sampled in one batch; bounds memory."""
    checkpoint_every: int = Field(default=10, ge=1)
    """Steps; the last one ends with one, too."""

    @model_validator(mode="after")
    def _batches_hold_whole_groups(self) -> Self:
        if self.batch_size % self.num_responses:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of num_responses {self.num_responses}")
        if not self.has_critic and self.num_responses < 2:
            raise ValueError(f"{self.advantage_estimator} compares responses to one prompt: set num_responses above 1")
        return self

    @property
    def prompts_per_step(self) -> int:
        """Of one batch."""
        return self.batch_size // self.num_responses

    def num_steps(self, num_prompts: int) -> int:
        """PPO steps of the whole training."""
        of_epochs = -(-self.epochs * num_prompts // self.prompts_per_step)
        return min(of_epochs, self.max_steps) if self.max_steps else of_epochs

    def identity(self) -> dict[str, Any]:
        """The settings that make two trainings differ."""
        return {name: value for name, value in super().identity().items() if name not in _ELSEWHERE}
