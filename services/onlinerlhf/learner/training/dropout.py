"""Residual dropout: on what each decoder layer's attention and MLP add to the residual stream."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import dropout
from transformers import PreTrainedModel

from onlinerlhf.core.errors import ConfigError

# The last modules before the two additions of a layer, by family. Where norms follow attention and MLP (Gemma 2,
# OLMo 2), it is their output that is added.
_BRANCHES = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("self_attn", "mlp"),
    ("attn", "mlp"),
    ("attention", "mlp"),
    ("self_attention", "mlp"),
)


@contextmanager
def residual_dropout(model: PreTrainedModel, share: float) -> Iterator[None]:
    """Drop each element of every branch's output with probability `share` and scale up the rest, under `.train()` only.

    ConfigError for an architecture whose branches are not known.
    """
    if share == 0:
        yield
        return

    def drop(module: nn.Module, _: Any, output: Any) -> Any:
        if not module.training:
            return output
        if isinstance(output, Tensor):
            return dropout(output, share)
        return (dropout(output[0], share), *output[1:])  # Attention returns its weights, too.

    handles = [branch.register_forward_hook(drop) for branch in _branches(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _branches(model: PreTrainedModel) -> list[nn.Module]:
    decoder: Any = model.get_decoder()
    for layers in ("layers", "h", "blocks"):
        found = getattr(decoder, layers, None)
        if isinstance(found, nn.ModuleList):
            return [branch for layer in found for branch in _branches_of(model, layer)]
    raise _unknown(model)


def _branches_of(model: PreTrainedModel, layer: nn.Module) -> list[nn.Module]:
    for names in _BRANCHES:
        branches = [getattr(layer, name, None) for name in names]
        if all(isinstance(branch, nn.Module) for branch in branches):
            return branches  # type: ignore[return-value]
    raise _unknown(model)


def _unknown(model: PreTrainedModel) -> ConfigError:
    name = type(model).__name__
    return ConfigError(f"residual_dropout: {name} has no attention and MLP where they are expected; set it to 0")
