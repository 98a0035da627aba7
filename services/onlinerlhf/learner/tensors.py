"""A model's tensors under their names, each once."""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel


def unique_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """The live parameters and saved buffers, tied ones under the first of their names only. Detached, not copied."""
    seen: set[int] = set()
    unique: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            unique[name] = tensor.detach()
    return unique


def copy_into(model: PreTrainedModel, tensors: Mapping[str, Tensor]) -> None:
    """Overwrite a model's tensors in place. Raises ValueError, with nothing changed, unless names and shapes agree."""
    live = unique_tensors(model)
    if live.keys() != tensors.keys():
        differing = sorted(live.keys() ^ tensors.keys())
        raise ValueError(f"{len(differing)} tensor names differ from the model's, among them {differing[0]}")
    for name, tensor in tensors.items():
        if live[name].shape != tensor.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, the model's has {tuple(live[name].shape)}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            live[name].copy_(tensor)
