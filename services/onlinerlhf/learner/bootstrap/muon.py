"""Muon (Jordan et al. 2024): momentum whose matrices are made orthogonal before they are applied.

torch has one too, but it works in bfloat16, which takes fifty times as long on processors without instructions for it.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from onlinerlhf.learner.bootstrap.sizes import Rates
from onlinerlhf.learner.training.config import TrainingConfig

_ITERATIONS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """For the matrices inside a network's layers only. Matrices of one shape are treated in one batch."""

    def __init__(self, parameters: Sequence[Tensor], *, lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Applies the gradients. `closure` is not supported."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                by_shape[parameter.shape].append(parameter)
            for parameters in by_shape.values():
                self._apply(parameters, group)

    def _apply(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        updates = []
        for parameter in parameters:
            if parameter.grad is None:
                raise ValueError("Muon needs a gradient for every matrix")
            buffer = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
            buffer.lerp_(parameter.grad, 1 - momentum)
            updates.append(parameter.grad.lerp(buffer, momentum))  # Nesterov
        rows, columns = parameters[0].shape
        size = group["lr"] * math.sqrt(max(1.0, rows / columns))
        for parameter, direction in zip(parameters, orthogonalised(torch.stack(updates)), strict=True):
            parameter.sub_(direction, alpha=size)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Replaces the singular values of each of [N, R, C] matrices by values near 1 (five Newton-Schulz steps)."""
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x  # type: ignore[no-any-return]


def muon_and_adamw(rates: Rates) -> Callable[[PreTrainedModel, TrainingConfig], list[torch.optim.Optimizer]]:
    """Optimizers for a training: Muon for the matrices inside the layers, AdamW for embeddings, heads and norms.

    Muon needs fewer steps than AdamW to the same loss, and steps are most of the time that a bootstrap takes.
    """

    def optimizers(model: PreTrainedModel, _: TrainingConfig) -> list[torch.optim.Optimizer]:
        named = list(model.named_parameters())
        matrices = [parameter for name, parameter in named if parameter.ndim == 2 and ".layers." in name]
        others = [parameter for name, parameter in named if not (parameter.ndim == 2 and ".layers." in name)]
        return [
            Muon(matrices, lr=rates.matrices),
            torch.optim.AdamW(others, lr=rates.others, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
        ]

    return optimizers
