"""What all ranks do at the same time. Rank 0 decides when, and sends each task as JSON and plain tensors."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import torch
from torch import Tensor

from onlinerlhf.algorithms.batching import PaddedBatch
from onlinerlhf.learner.tensors import Parts, broadcast


@dataclass(frozen=True, slots=True)
class Build:
    """Make the PPO anew, from the models as they start."""


@dataclass(frozen=True, slots=True)
class Learn:
    """One PPO step."""

    batch: PaddedBatch


@dataclass(frozen=True, slots=True)
class Gather:
    """Collect the whole state, which is sharded, on rank 0."""


@dataclass(frozen=True, slots=True)
class Export:
    """Collect the policy's weights on rank 0."""

    averaged: bool
    """Their moving average instead."""


@dataclass(frozen=True, slots=True)
class Restore:
    """Take over the state of a checkpoint. Only rank 0 holds its tensors; the others know names and shapes."""

    parts: Parts
    numbers: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stop:
    """Come to an end."""


Task: TypeAlias = Build | Learn | Gather | Export | Restore | Stop
_KINDS: dict[str, type[Task]] = {kind.__name__.lower(): kind for kind in (Build, Learn, Gather, Export, Restore, Stop)}


def described(task: Task) -> str:
    """The task without its tensors' content."""
    return json.dumps({"task": name_of(task), **_content(task)})


def name_of(task: Task) -> str:
    """One word."""
    return type(task).__name__.lower()


def send_tensors(task: Task) -> None:
    """A batch's tensors, to all other ranks: they call `receive` meanwhile."""
    if isinstance(task, Learn):
        for tensor in _tensors(task.batch).values():
            broadcast(tensor)


def receive(text: str, *, device: torch.device | str) -> Task:
    """The inverse of `described` and `send_tensors`."""
    content = json.loads(text)
    kind = _KINDS[content.pop("task")]
    if kind is Learn:
        tensors = {name: broadcast(_empty(shape, device=device)) for name, shape in content["tensors"].items()}
        return Learn(PaddedBatch(**tensors, lengths=tuple(content["lengths"])))
    if kind is Restore:
        shapes: dict[str, dict[str, Any]] = content["parts"]
        parts = {
            part: {name: _empty(shape, device="meta") for name, shape in named.items()}
            for part, named in shapes.items()
        }
        return Restore(parts, content["numbers"])
    return kind(**content)


def _content(task: Task) -> dict[str, Any]:
    match task:
        case Learn(batch):
            shapes = {name: _shape(tensor) for name, tensor in _tensors(batch).items()}
            return {"lengths": batch.lengths, "tensors": shapes}
        case Restore(parts, numbers):
            shapes_of = {part: {name: _shape(x) for name, x in tensors.items()} for part, tensors in parts.items()}
            return {"parts": shapes_of, "numbers": dict(numbers)}
        case Export(averaged):
            return {"averaged": averaged}
    return {}


def _tensors(batch: PaddedBatch) -> dict[str, Tensor]:
    named = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: tensor for name, tensor in named.items() if isinstance(tensor, Tensor)}


def _shape(tensor: Tensor) -> list[Any]:
    return [str(tensor.dtype).removeprefix("torch."), *tensor.shape]


def _empty(shape: list[Any], *, device: torch.device | str) -> Tensor:
    dtype, *sizes = shape
    return torch.empty(sizes, dtype=getattr(torch, dtype), device=device)
