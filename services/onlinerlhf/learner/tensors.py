"""A model's tensors under their names, each once."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

Parts: TypeAlias = dict[str, dict[str, Tensor]]
"""Tensors of a state by part and name."""


def trained_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """As `unique_tensors`, less the parameters that training leaves as they are."""
    live = model.state_dict(keep_vars=True)
    frozen = {name for name, x in live.items() if isinstance(x, torch.nn.Parameter) and not x.requires_grad}
    return {name: tensor for name, tensor in unique_tensors(model).items() if name not in frozen}


def unique_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """The live parameters and saved buffers, tied ones under the first of their names only. Detached, not copied."""
    seen: set[int] = set()
    unique: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            unique[name] = tensor.detach()
    return unique


def refuse_others(live: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Raises ValueError unless names and shapes agree."""
    if live.keys() != tensors.keys():
        differing = sorted(live.keys() ^ tensors.keys())
        raise ValueError(f"{len(differing)} tensor names differ from those expected, among them {differing[0]}")
    for name, tensor in tensors.items():
        if live[name].shape != tensor.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(live[name].shape)}")


@torch.no_grad()
def copy_into(
    live: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    spread: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> None:
    """Overwrite tensors in place. Raises ValueError, with nothing changed, unless names and shapes agree.

    `spread` makes each of the others whole on every rank, in their order.
    """
    refuse_others(live, tensors)
    for name, tensor in tensors.items():
        live[name].copy_(sharded_like(spread(tensor), live[name]))


def sharded_like(tensor: Tensor, example: Tensor) -> Tensor:
    """A whole tensor, which every rank holds, laid out as `example` is."""
    if not isinstance(example, DTensor):
        return tensor
    placed = distribute_tensor(tensor.to(example.device), example.device_mesh, example.placements, src_data_rank=None)
    return placed.to(example.dtype)


def broadcast(tensor: Tensor) -> Tensor:
    """Rank 0's content on every rank, in place."""
    distributed.broadcast(tensor.view(torch.uint8) if tensor.dtype is torch.bool else tensor, src=0)
    return tensor
