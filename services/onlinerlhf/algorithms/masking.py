"""Means and moments over the tokens that a mask marks. Masks, not sentinels: unmarked entries may hold anything."""

import torch
from torch import Tensor


def masked_sum(x: Tensor, mask: Tensor) -> Tensor:
    """Sum of `x` over the marked entries; 0 when none is marked. x, mask: [...] -> []."""
    return torch.where(mask, x, 0).sum()


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of `x` over all marked entries of all rows together (every token weighs the same). x, mask: [...] -> []."""
    return masked_sum(x, mask) / mask.sum()


def masked_row_sum(x: Tensor, mask: Tensor) -> Tensor:
    """Sum of each row's marked entries. x, mask: [B, T] -> [B]."""
    return torch.where(mask, x, 0).sum(dim=-1)


def masked_max(x: Tensor, mask: Tensor) -> Tensor:
    """Largest marked entry; -inf when none is marked. x, mask: [...] -> []."""
    return torch.where(mask, x, -torch.inf).amax()


def masked_var(x: Tensor, mask: Tensor) -> Tensor:
    """Population variance (divided by the count, not one less) of the marked entries. x, mask: [...] -> []."""
    return masked_mean((x - masked_mean(x, mask)).square(), mask)


def masked_whiten(x: Tensor, mask: Tensor, *, epsilon: float = 1e-8) -> Tensor:
    """Shift and scale the marked entries to mean 0 and variance 1; unmarked ones become 0.

    (x - mean) / sqrt(var + epsilon), mean and variance over all marked entries together. x, mask: [B, T] -> [B, T].
    """
    whitened = (x - masked_mean(x, mask)) * torch.rsqrt(masked_var(x, mask) + epsilon)
    return torch.where(mask, whitened, 0)


def masked_scale(x: Tensor, mask: Tensor, *, epsilon: float = 1e-8) -> Tensor:
    """Scale the marked entries to variance 1 around the mean that they have and keep; unmarked ones become 0.

    (x - mean) / sqrt(var + epsilon) + mean, mean and variance over all marked entries together.
    x, mask: [B, T] -> [B, T].
    """
    return torch.where(mask, masked_whiten(x, mask, epsilon=epsilon) + masked_mean(x, mask), 0)
