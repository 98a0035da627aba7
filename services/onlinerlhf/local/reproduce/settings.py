"""Everything about the reproduction that one might turn."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

TUNED_ON = 0
"""The seed that settings were chosen on. It is not reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What every seed goes through."""

    scale: str = "demo"
    """Of the bootstrapped models."""
    num_users: int = 60
    num_prompts: int = 768
    """That PPO learns from, of the train users."""
    num_held_out: int = 600
    """That policies are compared on, of the held-out users."""
    num_watched: int = 200
    """Of the held-out prompts, those that are answered again and again during training."""
    watch_every: int = 10
    """PPO steps."""
    num_tuning_prompts: int = 200
    """Of the train users: what the base model's prompt is chosen on."""
    num_mix_texts: int = 20_000
    """Pretraining texts that PPO-ptx mixes in."""
    num_unseen_texts: int = 2_000
    """Pretraining texts that no model was trained on, for the language-model loss."""
    max_tokens: int = 40
    """Of an answer."""
    ppo: Mapping[str, object] = field(default_factory=dict)
    """Of `onlinerlhf train ppo`, in both runs."""
    ptx: Mapping[str, object] = field(default_factory=dict)
    """Of the run with the pretraining mix, beside those."""
    is_proof: bool = True
    """Whether the claims have to hold."""

    @property
    def digest(self) -> str:
        """Tells results of other settings apart."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


MINIATURE = Settings(
    ppo={
        "epochs": 7,
        "max_steps": 80,
        "batch_size": 128,
        "num_responses": 2,
        "num_minibatches": 4,
        "learning_rate": 1.5e-4,
        "value_learning_rate": 1e-3,
        "warmup_steps": 10,
        "micro_batch_tokens": 4096,
    },
    # About where the gradient of the mix is as long as that of PPO: see docs/adr/0005-pretraining-mix.md.
    ptx={"ptx_coef": 2.0},
)
FAST = Settings(
    scale="tiny",
    num_users=12,
    num_prompts=16,
    num_held_out=12,
    num_watched=4,
    watch_every=1,
    num_tuning_prompts=2,
    num_mix_texts=50,
    num_unseen_texts=20,
    max_tokens=8,
    ppo={"epochs": 1, "batch_size": 8, "num_minibatches": 2, "learning_rate": 1e-4, "warmup_steps": 2},
    is_proof=False,
)
