"""From ragged rollouts to padded tensors, and the split of their rows into minibatches and micro-batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRollout:
    """One response as the learner trains on it."""

    prompt_ids: Sequence[int]
    response_ids: Sequence[int]
    behaviour_logprobs: Sequence[float]
    """Of each response token, nats, recorded by the sampler."""
    score: float
    """The reward model's, of prompt and response."""
    temperature: float = 1.0
    """Divided the logits when the response was sampled, and divides them in every pass of the learner."""
    is_finished: bool = True
    """Whether the response ended by itself (EOS or a stop string), by its finish reason; else it was cut off."""
    group: int = 0
    """Equal for responses to the same prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedBatch:
    """B rollouts, padded on the right to T positions. See the package's docstring for the index convention."""

    input_ids: Tensor
    """[B, T] int64: prompt, response, padding (0; never read back)."""
    response_mask: Tensor
    """[B, T] bool."""
    behaviour_logprobs: Tensor
    """[B, T] float32; 0 outside the response."""
    scores: Tensor
    """[B] float32."""
    temperatures: Tensor
    """[B] float32."""
    is_finished: Tensor
    """[B] bool."""
    groups: Tensor
    """[B] int64."""
    lengths: tuple[int, ...]
    """Prompt and response tokens of each row."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def num_response_tokens(self) -> int:
        """Over all rows."""
        return int(self.response_mask.sum())


def pad_batch(rollouts: Sequence[ScoredRollout], *, device: torch.device | str = "cpu") -> PaddedBatch:
    """Pad prompt + response of each rollout on the right, to the longest of them."""
    lengths = tuple(len(rollout.prompt_ids) + len(rollout.response_ids) for rollout in rollouts)
    size = (len(rollouts), max(lengths))
    input_ids = torch.zeros(size, dtype=torch.int64)
    response_mask = torch.zeros(size, dtype=torch.bool)
    behaviour_logprobs = torch.zeros(size, dtype=torch.float32)
    for row, (rollout, length) in enumerate(zip(rollouts, lengths, strict=True)):
        start = len(rollout.prompt_ids)
        input_ids[row, :length] = torch.tensor([*rollout.prompt_ids, *rollout.response_ids])
        response_mask[row, start:length] = True
        behaviour_logprobs[row, start:length] = torch.tensor(rollout.behaviour_logprobs)
    return PaddedBatch(
        input_ids=input_ids.to(device),
        response_mask=response_mask.to(device),
        behaviour_logprobs=behaviour_logprobs.to(device),
        scores=torch.tensor([rollout.score for rollout in rollouts], dtype=torch.float32, device=device),
        temperatures=torch.tensor([rollout.temperature for rollout in rollouts], dtype=torch.float32, device=device),
        is_finished=torch.tensor([rollout.is_finished for rollout in rollouts], device=device),
        groups=torch.tensor([rollout.group for rollout in rollouts], device=device),
        lengths=lengths,
    )


def pack_rows(lengths: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Rows into micro-batches of at most `max_tokens` tokens: every row in exactly one, longest first.

    A longer row stands alone. Rows of like length go together, which is what packed attention likes.
    """
    bins: list[list[int]] = []
    room = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not bins or lengths[row] > room:
            bins.append([])
            room = max_tokens
        bins[-1].append(row)
        room -= lengths[row]
    return bins


def share_rows(lengths: Sequence[int], num_shares: int) -> list[list[int]]:
    """Rows dealt out to the ranks so that their tokens differ little: longest first, each to the least laden."""
    shares: list[list[int]] = [[] for _ in range(num_shares)]
    loads = [0] * num_shares
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        least = loads.index(min(loads))
        shares[least].append(row)
        loads[least] += lengths[row]
    return shares


def split_minibatches(
    num_rows: int, num_minibatches: int, *, generator: torch.Generator | None = None
) -> tuple[tuple[int, ...], ...]:
    """A random partition of the rows into `num_minibatches` parts whose sizes differ by at most one.

    With fewer rows than minibatches, one row each.
    """
    order: list[int] = torch.randperm(num_rows, generator=generator).tolist()
    num_parts = min(num_minibatches, num_rows)
    base, extra = divmod(num_rows, num_parts)
    sizes = [base + (part < extra) for part in range(num_parts)]
    starts = [sum(sizes[:part]) for part in range(num_parts)]
    return tuple(tuple(order[start : start + size]) for start, size in zip(starts, sizes, strict=True))
