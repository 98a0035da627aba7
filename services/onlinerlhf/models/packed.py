"""Passes over packed sequences: no padding, and no sequence sees another.

Everything goes through the model's own `forward`, so that sharding and activation checkpointing, which hook into it,
work; logits are made only where they are asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from onlinerlhf.models.attention import Layout, no_mask
from onlinerlhf.models.scalar import backbone, score_head, score_offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Sequences laid end to end: N tokens in all."""

    input_ids: Tensor
    """[1, N] int64."""
    position_ids: Tensor
    """[1, N] int64, from 0 in each sequence."""
    lengths: tuple[int, ...]
    layout: Layout

    @property
    def starts(self) -> tuple[int, ...]:
        """Flat index of each sequence's first token."""
        return (0, *accumulate(self.lengths[:-1]))


def pack(sequences: Sequence[Sequence[int] | Tensor], *, device: torch.device | str = "cpu") -> Packed:
    """Sequences of token ids, none of them empty, in this order."""
    lengths = tuple(len(sequence) for sequence in sequences)
    if not lengths or min(lengths) == 0:
        raise ValueError(f"packing takes sequences of at least one token, got lengths {lengths[:8]}")
    input_ids = torch.cat([torch.as_tensor(sequence, dtype=torch.int64) for sequence in sequences])
    position_ids = torch.cat([torch.arange(length) for length in lengths])
    return Packed(
        input_ids=input_ids[None].to(device),
        position_ids=position_ids[None].to(device),
        lengths=lengths,
        layout=Layout.of(lengths, device=device),
    )


def packed_logits(model: PreTrainedModel, packed: Packed, keep: Tensor) -> Tensor:
    """Float32 logits at the flat places `keep`; they predict the tokens after these. [M] -> [M, V]."""
    return _forward(model, packed, logits_to_keep=keep).logits[0].float()  # type: ignore[no-any-return]


def packed_token_logprobs(
    model: PreTrainedModel, packed: Packed, predicted: Tensor, *, temperatures: Tensor | None = None
) -> Tensor:
    """log p(token | what stands before it in its sequence) in nats, float32, of the marked tokens in flat order.

    predicted: [N] bool; a sequence's first token cannot be marked. temperatures: [M], dividing the logits of each
    marked token. -> [M].
    """
    targets = predicted.nonzero()[:, 0]  # [M]
    logits = packed_logits(model, packed, targets - 1)
    if temperatures is not None:
        logits = logits / temperatures[:, None]
    return -cross_entropy(logits, packed.input_ids[0, targets], reduction="none")


def packed_values(model: PreTrainedModel, packed: Packed) -> Tensor:
    """The value network's value after each token, float32. [N]."""
    return _forward(model, packed).logits[0, :, 0].float()  # type: ignore[no-any-return]


def packed_scores(model: PreTrainedModel, packed: Packed) -> Tensor:
    """The reward model's score of each sequence, read at its last token, float32. [number of sequences]."""
    hidden = _forward(backbone(model), packed).last_hidden_state[0]  # [N, H]
    last = torch.tensor(packed.starts, device=hidden.device) + torch.tensor(packed.lengths, device=hidden.device) - 1
    return score_head(model)(hidden[last]).squeeze(-1).float() - score_offset(model)  # type: ignore[no-any-return]


def _forward(model: Any, packed: Packed, **others: Any) -> Any:
    return model(
        input_ids=packed.input_ids,
        position_ids=packed.position_ids,
        attention_mask=no_mask(packed.input_ids.device),
        packing=packed.layout,
        use_cache=False,
        **others,
    )
