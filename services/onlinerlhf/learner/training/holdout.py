"""Sets a share of the data aside for evaluation."""

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from onlinerlhf.core.errors import DataError

T = TypeVar("T")


def hold_out(
    items: Sequence[T], key: Callable[[T], str], *, share: float = 0.1, seed: int = 0
) -> tuple[list[T], list[T]]:
    """Items to train on, and items held out, in their order. No key (a user, a prompt) is on both sides.

    `share` is of the keys, at least one. Which ones depends on the keys and the seed, not on their order.
    """
    keys = sorted({key(item) for item in items}, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    if len(keys) < 2:
        raise DataError(f"{len(keys)} user or prompt cannot be split; give a file of its own to validate on")
    chosen = set(keys[: min(len(keys) - 1, max(1, math.floor(share * len(keys))))])
    return [item for item in items if key(item) not in chosen], [item for item in items if key(item) in chosen]
