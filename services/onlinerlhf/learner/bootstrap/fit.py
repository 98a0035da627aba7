"""What the training stages share: padding, the optimiser, and the loop."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import nn

from onlinerlhf.core.errors import NonFiniteLoss
from onlinerlhf.learner.bootstrap.muon import Muon
from onlinerlhf.learner.bootstrap.progress import Progress
from onlinerlhf.learner.bootstrap.sizes import Rates

Batch = TypeVar("Batch")
_MAX_GRAD_NORM = 1.0
_LOSSES_SHOWN = 20
_WARMUP_SHARE = 0.05
_FINAL_SHARE = 0.1


def pad_right(sequences: Sequence[Sequence[int]], pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both [B, T]."""
    length = max(map(len, sequences))
    ids = torch.full((len(sequences), length), pad_token_id)
    mask = torch.zeros(len(sequences), length, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    return ids, mask


def cosine(step: int, num_steps: int) -> float:
    """Share of the peak learning rate: linear warm-up, then cosine down to a tenth."""
    warmup = max(1, round(_WARMUP_SHARE * num_steps))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, num_steps - warmup)
    return _FINAL_SHARE + (1 - _FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def fit(
    model: nn.Module,
    batches: Iterable[Batch],
    loss_of: Callable[[Batch], torch.Tensor],
    *,
    num_steps: int,
    rates: Rates,
    progress: Progress,
) -> float:
    """Trains over `num_steps` batches. Returns the mean loss of the last tenth of the steps."""
    optimizers = _optimizers(model, rates)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, num_steps)) for optimizer in optimizers
    ]
    losses: list[float] = []
    for batch in batches:
        loss = loss_of(batch)
        if not bool(torch.isfinite(loss)):
            raise NonFiniteLoss(f"loss is {loss.item()} at step {len(losses)}")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), _MAX_GRAD_NORM)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        recent = losses[-_LOSSES_SHOWN:]
        progress.advance(detail=f"loss {sum(recent) / len(recent):.3f}")
    if not losses:
        raise ValueError("fit got no batches")
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / len(tail)


def _optimizers(model: nn.Module, rates: Rates) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings, heads and norms.

    Muon needs fewer steps than AdamW to the same loss, and steps are most of the time that a bootstrap takes.
    """
    named = list(model.named_parameters())
    matrices = [parameter for name, parameter in named if parameter.ndim == 2 and ".layers." in name]
    others = [parameter for name, parameter in named if not (parameter.ndim == 2 and ".layers." in name)]
    return [
        Muon(matrices, lr=rates.matrices),
        torch.optim.AdamW(others, lr=rates.others, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]
