"""Everything about a demo that one might turn."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from onlinerlhf.local.sections import Sections


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """Everything about a demo that one might turn."""

    num_users: int = 60
    num_prompts: int = 768
    """Training prompts, from the train users."""
    max_epochs: int = 5
    num_responses: int = 2
    """Responses a sample; a batch counts responses."""
    batch_size: int = 128
    num_held_out: int = 600
    """Evaluation prompts, from the held-out users."""
    max_tokens: int = 40
    learn_seconds: float = 420.0
    """Longest time for the steps; then the policy is evaluated as it is."""
    settle_seconds: float = 60.0
    needs_win: bool = True
    """Fail when the interval of the win rate does not clear one half, or one of the following is not reached."""
    min_win_rate: float = 0.65
    min_versions: int = 5
    """Versions that the rollout worker took in flight."""
    min_prompts: int = 200
    """Evaluation prompts that the win rate is of."""
    seed: int = 0
    learner: Mapping[str, object] = field(default_factory=dict)

    @property
    def num_steps(self) -> int:
        """What the prompts make, nothing dropped."""
        return self.num_prompts * self.max_epochs * self.num_responses // self.batch_size

    @property
    def sections(self) -> Sections:
        """Settings of the services."""
        batch_samples = math.ceil(self.batch_size / self.num_responses)
        return {
            "gateway": {
                "max_epochs": self.max_epochs,
                "prompts_bound": batch_samples,
                "default_max_tokens": self.max_tokens,
                # Its own held-out users are never offered for training.
                "valid_share": 0.0,
                "test_share": 0.0,
            },
            "rollout": {
                "num_responses": self.num_responses,
                "max_tokens": self.max_tokens,
                "max_samples_ahead": 2 * batch_samples,
                "max_model_len": 512,
            },
            "reward": {},
            "learner": {"batch_size": self.batch_size, **self.learner},
        }


DEMO = DemoSettings(
    learner={
        "num_minibatches": 4,
        "learning_rate": 1.5e-4,
        "value_learning_rate": 1e-3,
        "warmup_steps": 10,
        "max_staleness": 4,
        # Samples are acknowledged with a checkpoint, and until then they count as ahead of the learner.
        "checkpoint_every": 1,
    }
)
FAST = DemoSettings(
    num_users=12,
    num_prompts=32,
    max_epochs=2,
    num_responses=1,
    batch_size=16,
    num_held_out=12,
    max_tokens=12,
    learn_seconds=120.0,
    needs_win=False,
    learner={"num_minibatches": 2, "learning_rate": 1e-4, "warmup_steps": 2},
)
