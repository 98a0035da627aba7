"""Whether models, tokenizers and data fit together: asked before any work is done."""

from pathlib import Path

from tokenizers import Tokenizer
from transformers import PretrainedConfig

from onlinerlhf.core.errors import ConfigError, DataError
from onlinerlhf.models.tokenizer import PromptTokenizer


def check_tokenizer(config: PretrainedConfig, tokenizer: PromptTokenizer, path: Path) -> None:
    """The tokenizer of a model directory must be the model's: ids within its embedding, and the same end token."""
    if tokenizer.vocab_size > config.vocab_size:
        raise ConfigError(
            f"{path}: the tokenizer has {tokenizer.vocab_size} tokens, the model's embedding {config.vocab_size}; "
            "they are of two models: put the model's own tokenizer files into the directory"
        )
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if tokenizer.eos_token_id not in ends:
        raise ConfigError(
            f"{path}: the tokenizer's end token is {tokenizer.eos_token_id}, the model's config says "
            f"{config.eos_token_id}; a response would never be seen to end: correct eos_token in "
            "tokenizer_config.json or eos_token_id in config.json"
        )


def check_same_vocabulary(policy_dir: Path, reward_dir: Path) -> None:
    """Token ids go from the policy to the reward model as they are, so both must give them the same meaning."""
    policy, reward = (_vocabulary(path) for path in (policy_dir, reward_dir))
    if policy == reward:
        return
    num_differing = len(policy.items() ^ reward.items())
    raise ConfigError(
        f"the vocabulary of {reward_dir} ({len(reward)} tokens) differs from that of {policy_dir} ({len(policy)} "
        f"tokens) in {num_differing} entries; a reward model must be trained from a model with the policy's tokenizer"
    )


def check_lengths(config: PretrainedConfig, longest: int, path: Path) -> None:
    """The longest sequence of the data must fit the model's positions."""
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and longest > limit:
        raise DataError(
            f"the longest prompt and response have {longest} tokens together, {path} takes {limit}; "
            "lower max_prompt_tokens or max_response_tokens to learn which row it is"
        )


def _vocabulary(path: Path) -> dict[str, int]:
    file = path / "tokenizer.json"
    if not file.is_file():
        raise ConfigError(f"{path} has no tokenizer.json")
    return dict(Tokenizer.from_file(str(file)).get_vocab(with_added_tokens=True))
