"""Settings of reward model training. Defaults: Ouyang et al. 2022, appendix C.2."""

from typing import Any

from pydantic import Field, field_validator

from onlinerlhf.learner.training.config import TrainingConfig


class RewardConfig(TrainingConfig):
    """`onlinerlhf train reward`."""

    epochs: int = Field(default=1, ge=1)
    """More than one overfits: each response is compared many times already."""
    batch_size: int = Field(default=64, ge=1)
    """Rankings, which are prompts with all their responses."""
    learning_rate: float = Field(default=9e-6, gt=0)
    warmup_share: float = Field(default=0.0, ge=0, lt=1)
    micro_batch_tokens: int = Field(default=16384, ge=1)
    held_out_share: float = Field(default=0.1, gt=0, lt=1)
    """Of the prompts, never trained on, to measure accuracy on."""
    held_out_labelers: tuple[str, ...] = ()
    """Whose rankings are only measured on. On the command line separated by commas."""

    @field_validator("held_out_labelers", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [name.strip() for name in value.split(",") if name.strip()]
        return tuple(sorted(set(value))) if isinstance(value, list | tuple) else value
