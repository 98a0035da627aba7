"""Models with next to no training, in seconds, for tests: real directories, answers of no use."""

import itertools
from pathlib import Path

from onlinerlhf.learner.bootstrap.pretrain import new_model
from onlinerlhf.learner.bootstrap.sizes import SIZES
from onlinerlhf.learner.bootstrap.tokenizer_training import train_tokenizer
from onlinerlhf.learner.training.reward_model import reward_model_from
from onlinerlhf.models.policy import save_model
from onlinerlhf.models.tokenizer import PromptTokenizer
from onlinerlhf.world.text import documents


def tiny_models(out_dir: Path, *, tie_word_embeddings: bool, seed: int = 0) -> None:
    """Makes `out_dir/{tokenizer,base,sft,reward}` with random weights; `base` and `sft` are the same model."""
    size = SIZES["tiny"]
    texts = (document.text for document in itertools.islice(documents(seed=seed), size.tokenizer_documents))
    train_tokenizer(texts, out_dir / "tokenizer", vocab_size=size.vocab_size)
    tokenizer = PromptTokenizer.load(out_dir / "tokenizer")
    model = new_model(tokenizer, size, tie_word_embeddings=tie_word_embeddings, seed=seed)
    for name in ("base", "sft"):
        save_model(model, out_dir / "tokenizer", out_dir / name)
    reward = reward_model_from(out_dir / "sft", seed=seed)
    reward.config.score_offset = 0.25
    save_model(reward, out_dir / "tokenizer", out_dir / "reward")
