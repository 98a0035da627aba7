"""Builds a PPO from what its configuration names."""

import os
from pathlib import Path

import torch
from transformers import PreTrainedModel

from onlinerlhf.core.errors import ConfigError, StartupError
from onlinerlhf.learner.lora import add_adapters
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.pretraining_mix import PretrainingMix
from onlinerlhf.learner.ranks import Ranks
from onlinerlhf.learner.recipe_config import RecipeConfig
from onlinerlhf.learner.sharding import alone, shard
from onlinerlhf.learner.tasks import Build
from onlinerlhf.learner.training.data import load_texts
from onlinerlhf.learner.training.match import check_same_vocabulary
from onlinerlhf.models.policy import load_policy
from onlinerlhf.models.scalar import value_model_from_reward
from onlinerlhf.models.tokenizer import PromptTokenizer
from onlinerlhf.models.version import model_version


def build_ppo(config: RecipeConfig, ranks: Ranks | None = None) -> PPO:
    """Models as they start: the policy, its frozen reference, and a value network that starts as the reward model.

    ranks: those that share it; None: this process alone. With several, all of them call it.
    """
    ranks = ranks or alone(config)
    with ranks.together(Build()):
        return _build(config, ranks)


def _build(config: RecipeConfig, ranks: Ranks) -> PPO:
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    if config.deterministic:
        # cuBLAS reads it at its first use, and is refused without it.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(mode=True)
    try:
        policy = load_policy(config.policy_dir)
        reference = load_policy(config.reference_dir or config.policy_dir)
        value = None
        if config.has_critic and config.reward_dir is not None:
            value = value_model_from_reward(config.reward_dir)
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        where = f"policy {config.policy_dir}, reward model {config.reward_dir}"
        raise StartupError(f"cannot load the models ({where}): {error}") from error
    _refuse_other_vocabularies(policy, reference, value)
    if config.reward_dir is not None and all((path / "tokenizer.json").exists() for path in _told_apart(config)):
        check_same_vocabulary(*_told_apart(config))
    base = None
    if config.lora_rank:
        add_adapters(policy, config)
        base = f"{model_version(config.policy_dir)} with lora_alpha {config.lora_alpha:g}"
    for model in filter(None, (policy, reference, value)):
        shard(model, config, ranks)
    return PPO(policy=policy, reference=reference, value=value, config=config, mix=_mix(config), ranks=ranks, base=base)


def _refuse_other_vocabularies(policy: PreTrainedModel, *others: PreTrainedModel | None) -> None:
    sizes = [model.config.vocab_size for model in (policy, *others) if model is not None]
    if len(set(sizes)) > 1:
        raise StartupError(f"policy, reference and reward model differ in their vocabularies' sizes: {sizes}")


def _told_apart(config: RecipeConfig) -> tuple[Path, Path]:
    """The policy's tokens go to the reward model as they are, wherever that runs."""
    return config.policy_dir, config.reward_dir or config.policy_dir


def _mix(config: RecipeConfig) -> PretrainingMix | None:
    if config.ptx_data is None:
        return None
    tokenizer = PromptTokenizer.load(config.policy_dir)
    return PretrainingMix(
        load_texts(config.ptx_data),
        lambda text: [*tokenizer.encode_text(text), tokenizer.eos_token_id],
        max_tokens=config.ptx_max_tokens,
        seed=config.seed,
    )
