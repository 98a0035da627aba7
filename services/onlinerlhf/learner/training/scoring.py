"""A reward model's scores of many sequences."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from onlinerlhf.algorithms.batching import pack_rows
from onlinerlhf.models.packed import pack, packed_scores


@torch.no_grad()
def sequence_scores(model: PreTrainedModel, sequences: Sequence[Sequence[int]], *, max_tokens: int) -> Tensor:
    """One score a sequence, in order, in passes of at most `max_tokens` tokens. [number of sequences] float32."""
    scores = torch.zeros(len(sequences), device=model.device)
    for rows in pack_rows([len(sequence) for sequence in sequences], max_tokens=max_tokens):
        scores[rows] = packed_scores(model, pack([sequences[row] for row in rows], device=model.device))
    return scores
