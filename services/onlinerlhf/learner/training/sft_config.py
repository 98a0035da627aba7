"""Settings of supervised fine-tuning. Defaults: Ouyang et al. 2022, appendix C.1, of the models up to 6B."""

from pydantic import Field

from onlinerlhf.learner.training.config import TrainingConfig


class SFTConfig(TrainingConfig):
    """`onlinerlhf train sft`."""

    epochs: int = Field(default=16, ge=1)
    """More than validation loss asks for: the reward score goes on rising, and chooses the epoch."""
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=9.65e-6, gt=0)
    warmup_share: float = Field(default=0.0, ge=0, lt=1)
    residual_dropout: float = Field(default=0.2, ge=0, lt=1)
    validation_share: float = Field(default=0.05, gt=0, lt=1)
    """Of the users (of the prompts, where rows name no user), held out when no validation file is given."""
    num_validation_prompts: int = Field(default=200, ge=1)
    """At most so many are answered after each epoch for the reward model."""
    sampled_together: int = Field(default=64, ge=1)
    """Prompts answered in one batch; bounds memory."""
