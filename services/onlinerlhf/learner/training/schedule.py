"""The learning rate over a training."""

import math


def cosine(step: int, num_steps: int, *, warmup_share: float = 0.05, final_share: float = 0.1) -> float:
    """Share of the peak learning rate at a step (from 0): linear warm-up, then a cosine down to `final_share`."""
    warmup = max(1, round(warmup_share * num_steps)) if warmup_share else 0
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, num_steps - warmup)
    return final_share + (1 - final_share) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
