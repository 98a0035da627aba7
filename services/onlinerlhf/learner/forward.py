"""The learner's passes over a micro-batch: log-probabilities and values of the response tokens.

Rows are padded on the right and the models are causal, so a real token never attends to padding: the passes run
without a padding mask (which is also what lets attention use its fast causal kernel), and logits are made only where
a response token is predicted.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from onlinerlhf.algorithms.batching import PaddedBatch
from onlinerlhf.models.scalar import token_values


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Some rows of a padded batch, cut to the longest of them."""

    rows: Tensor
    """[b] int64: which rows of the batch."""
    input_ids: Tensor
    """[b, w] int64."""
    response_mask: Tensor
    """[b, w] bool."""
    temperatures: Tensor
    """[b] float32."""

    def take(self, x: Tensor) -> Tensor:
        """The same rows and positions of another tensor of the batch. [B, T] -> [b, w]."""
        return x[self.rows, : self.input_ids.shape[1]]


def micro_batch(batch: PaddedBatch, rows: list[int]) -> MicroBatch:
    """Rows of the batch as compact as they go."""
    width = max(batch.lengths[row] for row in rows)
    index = torch.tensor(rows, device=batch.input_ids.device)
    return MicroBatch(
        rows=index,
        input_ids=batch.input_ids[index, :width],
        response_mask=batch.response_mask[index, :width],
        temperatures=batch.temperatures[index],
    )


def response_logprobs(model: PreTrainedModel, micro: MicroBatch) -> Tensor:
    """log pi(token t | tokens before t) in nats at position t, temperature applied; 0 outside the response. [b, w]."""
    # Position t is read off t-1: the last token feeds nothing, the first is never predicted.
    predicted = micro.response_mask[:, 1:]
    hidden = model.get_decoder()(input_ids=micro.input_ids[:, :-1], use_cache=False).last_hidden_state  # [b, w-1, H]
    logits = model.get_output_embeddings()(hidden[predicted]).float()  # [N, V]
    if bool((micro.temperatures != 1).any()):
        logits = logits / micro.temperatures.unsqueeze(1).expand_as(predicted)[predicted].unsqueeze(1)
    flat = -cross_entropy(logits, micro.input_ids[:, 1:][predicted], reduction="none")
    return _placed(flat, micro.response_mask)


def response_values(model: PreTrainedModel, micro: MicroBatch) -> Tensor:
    """The value of the state before token t, at position t; 0 outside the response. [b, w] float32."""
    before = micro.input_ids[:, :-1]
    values = token_values(model, before, torch.ones_like(before))  # [b, w-1]
    return _placed(values[micro.response_mask[:, 1:]], micro.response_mask)


def _placed(flat: Tensor, mask: Tensor) -> Tensor:
    """Flat entries (row by row) back at the marked positions, 0 elsewhere. [N] -> [b, w]."""
    return torch.zeros(mask.shape, dtype=flat.dtype, device=flat.device).masked_scatter(mask, flat)
