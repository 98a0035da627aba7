"""What a training minimises, over which data, and how a batch is cut into passes."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from onlinerlhf.algorithms.batching import pack_rows

E = TypeVar("E")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective(Generic[E]):
    """What is minimised: the sum of `loss` over a batch, divided by the sum of `weight` over it."""

    num_tokens: Callable[[E], int]
    """Of all sequences of an element."""
    weight: Callable[[E], float]
    """An element's part in the mean: above 0."""
    loss: Callable[[Sequence[E]], tuple[Tensor, Mapping[str, float]]]
    """The differentiable sum over some elements, and sums of what else to report, divided alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches(Generic[E]):
    """The training data in order."""

    steps_per_epoch: int
    epoch: Callable[[int], Iterable[Sequence[E]]]
    """The batches of an epoch (from 0): a pure function of its number."""


def shuffled(elements: Sequence[E], *, batch_size: int, seed: int) -> Batches[E]:
    """All elements in a new random order each epoch; the last batch may be smaller."""
    if not elements:
        raise ValueError("there is nothing to train on")

    def epoch(number: int) -> Iterable[Sequence[E]]:
        order = random.Random(f"order/{seed}/{number}").sample(elements, len(elements))
        return (order[at : at + batch_size] for at in range(0, len(order), batch_size))

    return Batches(steps_per_epoch=-(-len(elements) // batch_size), epoch=epoch)


@torch.no_grad()
def mean_loss(
    model: PreTrainedModel, elements: Sequence[E], objective: Objective[E], *, micro_batch_tokens: int
) -> dict[str, float]:
    """The objective over all of these as one batch: `loss`, and what else it reports. In evaluation mode."""
    if not elements:
        raise ValueError("there is nothing to evaluate on")
    was_training = model.training
    model.eval()
    sums: dict[str, float] = {}
    for part in micro_batches(elements, objective, max_tokens=micro_batch_tokens):
        loss, numbers = objective.loss(part)
        add(sums, {"loss": float(loss), **numbers})
    model.train(was_training)
    weight = sum(map(objective.weight, elements))
    return {key: value / weight for key, value in sums.items()}


def micro_batches(batch: Sequence[E], objective: Objective[E], *, max_tokens: int) -> Iterable[list[E]]:
    """All elements, in passes of at most `max_tokens` tokens; a longer element stands alone."""
    rows = pack_rows([objective.num_tokens(element) for element in batch], max_tokens=max_tokens)
    return ([batch[row] for row in part] for part in rows)


def add(sums: dict[str, float], numbers: Mapping[str, float]) -> None:
    """Add numbers to the sums of the same names."""
    for key, value in numbers.items():
        sums[key] = sums.get(key, 0.0) + float(value)
