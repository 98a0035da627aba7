"""Optimizers of an offline training, and their state as named tensors."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from onlinerlhf.learner.training.config import TrainingConfig


def adamw(model: PreTrainedModel, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """AdamW (Loshchilov and Hutter 2019) over all trainable parameters."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        torch.optim.AdamW(
            parameters,
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.adam_epsilon,
            weight_decay=config.weight_decay,
            fused=True,
        )
    ]


def moments(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """All tensors of the optimizers' states, as `<optimizer>.<parameter>.<name>`."""
    return {
        f"{place}.{index}.{name}": tensor
        for place, optimizer in enumerate(optimizers)
        for index, state in optimizer.state_dict()["state"].items()
        for name, tensor in state.items()
    }


def load_moments(optimizers: Sequence[torch.optim.Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `moments`. Raises KeyError or ValueError for those of other optimizers."""
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for key, tensor in tensors.items():
        place, index, name = key.split(".")
        if int(place) >= len(states):
            raise ValueError(f"it holds {int(place) + 1} optimizers' states, expected {len(states)}")
        states[int(place)].setdefault(int(index), {})[name] = tensor.clone()
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
