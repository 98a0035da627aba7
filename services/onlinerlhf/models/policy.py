"""The policy: a causal language model in a transformers directory."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, PreTrainedModel

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.models.attention import PACKABLE

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
# Logits are made for this many elements at a time (256 MiB in float32), or for all if they fit.
_LOGITS_AT_ONCE = 1 << 26


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


def token_logprobs(
    model: PreTrainedModel,
    input_ids: torch.Tensor,  # [B, T]
    attention_mask: torch.Tensor,  # [B, T]
    *,
    temperature: float = 1.0,
) -> torch.Tensor:  # [B, T-1]
    """log pi(input_ids[:, t+1] | input_ids[:, :t+1]) in nats, float32, at a sampling temperature.

    Sequences are padded on the right. Positions whose next token is padding hold a value without meaning; mask them.
    """
    # Causal and padded on the right: no real token sees padding, and without a mask attention takes its fast path.
    if not bool((attention_mask[:, 1:] <= attention_mask[:, :-1]).all()):
        raise ValueError("token_logprobs needs padding on the right")
    hidden = model.get_decoder()(input_ids=input_ids, use_cache=False).last_hidden_state
    states, targets = hidden[:, :-1].flatten(0, 1), input_ids[:, 1:].flatten()
    head = model.get_output_embeddings()
    num_rows = max(1, _LOGITS_AT_ONCE // head.weight.shape[0])
    if len(targets) <= num_rows:
        return _logprobs(head, states, targets, temperature).view(input_ids.shape[0], -1)
    # With gradients, each block's logits are made again in the backward pass rather than all kept at once.
    blocks = [
        checkpoint(_logprobs, head, rows, wanted, temperature, use_reentrant=False)
        for rows, wanted in zip(states.split(num_rows), targets.split(num_rows), strict=True)
    ]
    return torch.cat(blocks).view(input_ids.shape[0], -1)


def _logprobs(head: torch.nn.Module, states: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    logits = head(states).float() / temperature  # [rows, V]
    return -torch.nn.functional.cross_entropy(logits, targets, reduction="none")
