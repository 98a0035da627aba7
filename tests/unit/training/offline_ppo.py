"""Small offline PPO trainings on tiny models."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from onlinerlhf.learner.bootstrap import tiny_models
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.training.ppo_train_config import PPOTrainConfig
from onlinerlhf.models.policy import save_model
from onlinerlhf.models.scalar import load_reward_model

FAVOURITE = 100


def make_models(path: Path) -> Path:
    """Random models, but the reward model's score: 1 for a response that ends in FAVOURITE, about 0 for any other."""
    torch.set_num_threads(1)
    tiny_models(path, tie_word_embeddings=False)
    reward = load_reward_model(path / "reward")
    with torch.no_grad():
        for name, parameter in reward.named_parameters():
            if "o_proj" in name or "down_proj" in name:
                parameter.zero_()
        liked = reward.get_input_embeddings().weight[FAVOURITE]
        reward.score.weight.copy_((liked / liked.norm())[None] / len(liked) ** 0.5)
    reward.config.score_offset = 0.0
    save_model(reward, path / "tokenizer", path / "reward")
    return path


def make_config(models: Path, directory: Path, **settings: Any) -> PPOTrainConfig:
    """Four steps, in directory / "out"."""
    prompts = directory / "prompts.jsonl"
    if not prompts.exists():
        prompts.write_text("".join(json.dumps({"prompt": f"name {number}"}) + "\n" for number in range(10)))
    defaults = {
        "policy_dir": models / "sft",
        "reward_dir": models / "reward",
        "prompts": [prompts],
        "output_dir": directory / "out",
        "max_steps": 4,
        "epochs": 1000,
        "batch_size": 16,
        "num_responses": 2,
        "num_minibatches": 2,
        "max_response_tokens": 3,
        "learning_rate": 3e-3,
        "value_learning_rate": 3e-3,
        "warmup_steps": 0,
        "checkpoint_every": 2,
        "num_threads": 1,
    }
    return PPOTrainConfig.model_validate({**defaults, **settings})


class StoppedHereError(Exception):
    """What a test stops a training with."""


def stop_at(step: int) -> Callable[[PPO, Mapping[str, float]], None]:
    """An `on_step` that ends the training within this step, after it was applied."""

    def on_step(ppo: PPO, numbers: Mapping[str, float]) -> None:
        if numbers["step"] == step:
            raise StoppedHereError

    return on_step


def assert_identical(one: Path, other: Path) -> None:
    """The policies are, and their averages."""
    for part in (".", "ema"):
        ours, theirs = (load_file(out / part / "model.safetensors") for out in (one, other))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


class Said:
    """A reporter that remembers what was said."""

    def __init__(self) -> None:
        self.text = ""

    def start(self, name: str, total: int) -> "Said":
        """Nobody watches."""
        return self

    def advance(self, *, detail: str = "", steps: int = 1) -> None:
        """Nobody watches."""

    def say(self, message: str) -> None:
        """One more line."""
        self.text += message + "\n"
