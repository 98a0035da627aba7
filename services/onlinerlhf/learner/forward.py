"""The learner's passes over a micro-batch: log-probabilities and values of the response tokens.

Rows are packed, so nothing is spent on padding, and logits are made only where a response token is predicted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from onlinerlhf.algorithms.batching import PaddedBatch
from onlinerlhf.models.packed import Packed, pack, packed_token_logprobs, packed_values


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Some rows of a batch, to be passed through a model together. None: a pass that counts for nothing."""

    rows: Tensor
    """[b] int64: which rows of the batch."""
    packed: Packed
    """Their tokens end to end, N in all."""
    predicted: Tensor
    """[N] bool: response tokens."""
    response_mask: Tensor
    """[b, w] bool: the same in rows, cut to the longest of them."""
    temperatures: Tensor
    """[b] float32."""

    def take(self, x: Tensor) -> Tensor:
        """The same rows and positions of another tensor of the batch. [B, T] -> [b, w]."""
        return x[self.rows, : self.response_mask.shape[1]]


def micro_batch(batch: PaddedBatch, rows: Sequence[int]) -> MicroBatch:
    """Rows of the batch; no rows stand for one token of which nothing is asked."""
    device = batch.input_ids.device
    index = torch.tensor(rows, dtype=torch.int64, device=device)
    lengths = [batch.lengths[row] for row in rows]
    tokens = [batch.input_ids[row, :length] for row, length in zip(rows, lengths, strict=True)]
    mask = batch.response_mask[index, : max(lengths, default=0)]
    is_real = torch.arange(mask.shape[1], device=device) < torch.tensor(lengths, device=device)[:, None]
    return MicroBatch(
        rows=index,
        packed=pack(tokens or [[0]], device=device),
        predicted=mask[is_real] if rows else torch.zeros(1, dtype=torch.bool, device=device),
        response_mask=mask,
        temperatures=batch.temperatures[index],
    )


def response_logprobs(model: PreTrainedModel, micro: MicroBatch) -> Tensor:
    """log pi(token t | tokens before t) in nats at position t, temperature applied; 0 outside the response. [b, w]."""
    mask = micro.response_mask
    temperatures = None
    if bool((micro.temperatures != 1).any()):
        temperatures = micro.temperatures[:, None].expand_as(mask)[mask]
    flat = packed_token_logprobs(model, micro.packed, micro.predicted, temperatures=temperatures)
    return _placed(flat, mask)


def response_values(model: PreTrainedModel, micro: MicroBatch) -> Tensor:
    """The value of the state before token t, at position t; 0 outside the response. [b, w] float32."""
    after = packed_values(model, micro.packed)
    return _placed(after[micro.predicted.nonzero()[:, 0] - 1], micro.response_mask)


def _placed(flat: Tensor, mask: Tensor) -> Tensor:
    """Flat entries (row by row) back at the marked positions, 0 elsewhere. [N] -> [b, w]."""
    return torch.zeros(mask.shape, dtype=flat.dtype, device=flat.device).masked_scatter(mask, flat)
