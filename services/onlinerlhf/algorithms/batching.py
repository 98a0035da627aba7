"""From ragged rollouts to padded tensors, and back to compact micro-batches."""

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
        lengths=lengths,
    )


def length_buckets(
    lengths: Sequence[int], *, max_tokens: int, min_tokens: int = 2048, max_waste: float = 0.1
) -> list[list[int]]:
    """Split rows into micro-batches of like length: every row in exactly one, longest first.

    A bucket is padded to its longest row and holds at most `max_tokens` positions, padding included (a longer row
    stands alone). Once it holds `min_tokens`, a row that would be padded by more than the share `max_waste` of its
    bucket's width opens the next one: below that size, one larger pass costs less than two small ones.
    """
    buckets: list[list[int]] = []
    width = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        padded = (len(buckets[-1]) + 1) * width if buckets else 0
        is_full = padded > max_tokens or (padded - width >= min_tokens and lengths[row] < (1 - max_waste) * width)
        if not buckets or is_full:
            buckets.append([])
            width = lengths[row]
        buckets[-1].append(row)
    return buckets


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
