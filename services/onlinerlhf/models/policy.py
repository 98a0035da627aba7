"""The policy: a causal language model in a transformers directory."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.models.attention import PACKABLE

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def load_policy(path: Path | str, *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The model in evaluation mode, without dropout and without a generation cache."""
    model = load_complete(AutoModelForCausalLM, path, dtype=dtype)
    for name in ("final_logit_softcapping", "logit_scale"):
        if getattr(model.config, name, None) is not None:
            raise ConfigError(f"{path}: {name} changes the logits after the output layer, which is not supported")
    return prepared(model)


def load_complete(kind: Any, path: Path | str, *, dtype: torch.dtype) -> Any:
    """A model all of whose weights are in the directory. ConfigError: some would have been made up."""
    model, found = kind.from_pretrained(path, dtype=dtype, output_loading_info=True)
    lacking = sorted(found["missing_keys"])
    if lacking:
        raise ConfigError(
            f"{path} lacks {len(lacking)} weights of a {type(model).__name__}, among them {lacking[0]}: "
            "is it the directory of another kind of model?"
        )
    return model


def prepared(model: Any) -> PreTrainedModel:
    """Switches off what would make two passes over the same tokens differ: dropout in every layer, and the cache.

    Its attention takes packed sequences from now on, too.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    model.set_attn_implementation(PACKABLE)
    model.eval()
    return model


def save_model(model: PreTrainedModel, tokenizer_dir: Path | str, path: Path | str) -> None:
    """Writes a complete transformers directory, tokenizer files included, or nothing at all.

    Everything goes to a temporary directory beside `path`, is synced, and is renamed. An existing `path` is replaced.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        model.save_pretrained(staging)
        for name in TOKENIZER_FILES:
            source = Path(tokenizer_dir) / name
            if source.exists():
                shutil.copyfile(source, staging / name)
        publish_directory(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def publish_directory(staging: Path, target: Path) -> None:
    """Renames a finished directory into place after everything in it is on disk."""
    staging.chmod(0o755)
    for file in staging.iterdir():
        _sync(file)
    _sync(staging)
    if target.exists():
        shutil.rmtree(target)
    staging.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
