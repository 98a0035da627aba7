"""What the rollout benchmarks share: a model of the demo's size with random weights, and settings for it."""

import random
from pathlib import Path

from transformers import Qwen3Config, Qwen3ForCausalLM

from onlinerlhf.learner.bootstrap.tiny import tiny_models
from onlinerlhf.models.policy import save_model
from onlinerlhf.models.tokenizer import PromptTokenizer
from onlinerlhf.rollout.config import RolloutConfig

MAX_TOKENS = 64


def make_model(directory: Path) -> Path:
    """A transformers directory: the demo's shape, random weights."""
    tiny_models(directory, tie_word_embeddings=True)
    tokenizer = PromptTokenizer.load(directory / "tokenizer")
    config = Qwen3Config(
        vocab_size=1_024,
        hidden_size=192,
        intermediate_size=576,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    save_model(Qwen3ForCausalLM(config), directory / "tokenizer", directory / "model")
    return directory / "model"


def make_prompts(count: int) -> list[tuple[int, ...]]:
    """Token ids of random prompts, 16 to 48 tokens each."""
    rng = random.Random(0)
    return [tuple(rng.randrange(100, 1_000) for _ in range(rng.randint(16, 48))) for _ in range(count)]


def settings(model_dir: Path, directory: Path) -> RolloutConfig:
    """A worker's settings."""
    return RolloutConfig(
        model_dir=model_dir,
        learner_target="127.0.0.1:1",
        staging_dir=directory / "staging",
        max_tokens=MAX_TOKENS,
        max_concurrent_samples=64,
        max_samples_ahead=100_000,
        kv_cache_bytes=512 * 1024**2,
    )
