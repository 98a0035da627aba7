"""The `[learner]` section."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from onlinerlhf.learner.recipe_config import RecipeConfig
from onlinerlhf.runtime.config import ServiceConfig


class LearnerConfig(ServiceConfig, RecipeConfig):
    """Settings of the learner's service and of its PPO steps."""

    output_dir: Path
    """Holds checkpoints/, versions/, versions-ema/, steps.jsonl and tensorboard/."""
    batch_size: int = Field(default=512, ge=1)
    """Rollouts of one PPO step."""
    max_staleness: int = Field(default=4, ge=0)
    """A sample whose oldest token is more versions behind the learner than this, or ahead of it, is dropped."""
    max_wait_seconds: float = Field(default=0.0, ge=0)
    """Train on what there is once the oldest gathered sample has waited this long. 0: wait for a full batch."""
    max_steps: int = Field(default=0, ge=0)
    """Stop learning after this many steps. 0: never."""
    checkpoint_every: int = Field(default=1, ge=1)
    """PPO steps. Samples are acked with the checkpoint that contains them."""
    checkpoint_idle_seconds: float = Field(default=1.0, gt=0)
    """Steps not in a checkpoint yet are saved after this long without a full batch."""
    checkpoint_retry_seconds: float = Field(default=5.0, gt=0)
    """Between tries after a checkpoint or version could not be written."""
    max_unsaved_steps: int = Field(default=4, ge=1)
    """Learning pauses while this many steps (and at least checkpoint_every) are not in a checkpoint."""
    keep_checkpoints: int = Field(default=2, ge=1)
    keep_versions: int = Field(default=4, ge=1)
    """Versions kept on disk, on each weight line, for workers that are behind or still fetching."""
    wandb_project: str | None = None
    """Also log to this Weights & Biases project, as WANDB_PROJECT does."""
    publish_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    lease_seconds: float = Field(default=30.0, gt=0)
    """A dead learner's samples are redelivered to another after this long."""
