"""Attention over packed sequences, registered with transformers under `PACKABLE`.

A packed pass lays sequences end to end without padding: every layer but attention works on real tokens only. Attention
gathers them into a few rectangles of like lengths, where the fast causal kernels run, and puts the results back. Calls
without a layout (generation, padded batches) are transformers' own scaled dot-product attention.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from onlinerlhf.core.errors import ConfigError

PACKABLE = "onlinerlhf_packable"
# A rectangle's rows are at least this share of its width long.
_MIN_FILL = 0.6
# Given as the attention mask of a packed pass: transformers hands four dimensions on as they are.
_NO_MASK_SHAPE = (1, 1, 1, 1)


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Some of the sequences, padded to a common width."""

    take: Tensor
    """[rows * width] int64: the flat token at each place; any token where there is padding."""
    real: Tensor
    """[n] int64: the places that are not padding."""
    num_rows: int
    width: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the sequences of a packed pass lie."""

    rectangles: tuple[Rectangle, ...]
    order: Tensor
    """[N] int64: of the rectangles' real places one after the other, which one each flat token is."""

    @classmethod
    def of(cls, lengths: Sequence[int], *, device: torch.device | str) -> "Layout":
        """Of sequences laid end to end in this order."""
        starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
        by_length = sorted(range(len(lengths)), key=lambda row: -lengths[row])
        rectangles, tokens = [], []
        for rows in _of_like_lengths(by_length, lengths):
            width = lengths[rows[0]]
            columns = torch.arange(width)
            row_lengths = torch.tensor([lengths[row] for row in rows])
            flat = torch.tensor([starts[row] for row in rows])[:, None] + columns  # [rows, width]
            is_real = columns < row_lengths[:, None]
            take = torch.where(is_real, flat, flat[:, :1]).flatten()
            tokens.append(flat[is_real])
            real = is_real.flatten().nonzero()[:, 0]
            rectangles.append(Rectangle(take.to(device), real.to(device), len(rows), width))
        return cls(tuple(rectangles), torch.cat(tokens).argsort().to(device))


def _of_like_lengths(by_length: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    groups: list[list[int]] = []
    for row in by_length:
        if not groups or lengths[row] < _MIN_FILL * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(row)
    return groups


def no_mask(device: torch.device) -> Tensor:
    """What a packed pass gives as its attention mask."""
    return torch.zeros(_NO_MASK_SHAPE, dtype=torch.bool, device=device)


def packable_attention(
    module: torch.nn.Module,
    query: Tensor,  # [1, heads, N, D]
    key: Tensor,  # [1, kv heads, N, D]
    value: Tensor,  # [1, kv heads, N, D]
    attention_mask: Tensor | None,
    *,
    packing: Layout | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:  # [1, N, heads, D]
    """Causal attention within each packed sequence; without a layout, transformers' own."""
    if packing is None:
        if attention_mask is not None and attention_mask.shape == _NO_MASK_SHAPE and query.shape[2] > 1:
            raise ConfigError(f"{type(module).__name__} does not hand on what packed sequences need")
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
    window = others.get("sliding_window")
    if window is not None and any(rectangle.width > window for rectangle in packing.rectangles):
        raise ConfigError(f"{type(module).__name__} attends to {window} tokens only; longer sequences cannot be packed")
    parts = []
    for rectangle in packing.rectangles:
        out = scaled_dot_product_attention(
            _gather(query, rectangle),
            _gather(key, rectangle),
            _gather(value, rectangle),
            is_causal=True,
            dropout_p=dropout,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )  # [rows, heads, width, D]
        parts.append(out.transpose(1, 2).flatten(0, 1)[rectangle.real])
    return torch.cat(parts)[packing.order].unsqueeze(0), None


def _gather(x: Tensor, rectangle: Rectangle) -> Tensor:
    """[1, h, N, D] -> [rows, h, width, D]."""
    tokens = x[0].transpose(0, 1)[rectangle.take]
    return tokens.view(rectangle.num_rows, rectangle.width, *tokens.shape[1:]).transpose(1, 2)


AttentionInterface.register(PACKABLE, packable_attention)
AttentionMaskInterface.register(PACKABLE, sdpa_mask)
