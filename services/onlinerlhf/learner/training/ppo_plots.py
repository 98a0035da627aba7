"""The picture of a PPO training."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path


def draw_steps(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Reward-model score and KL over the steps; and score against sqrt KL, the axes of Gao et al. 2022, section 3."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    applied = [numbers for numbers in history if "skipped" not in numbers]
    steps = [numbers["step"] for numbers in applied]
    scores = [numbers["score_mean"] for numbers in applied]
    kl = [numbers["kl_per_sequence_nats"] for numbers in applied]
    # An estimate from samples: near the start it may be below zero.
    distances = [math.sqrt(max(0.0, nats)) for nats in kl]
    panels = (
        ("reward-model score (mean)", "step", steps, scores, "-"),
        ("KL to the reference (nats a sequence)", "step", steps, kl, "-"),
        ("score against distance", "sqrt KL (nats a sequence)", distances, scores, "."),
    )
    figure, axes = plt.subplots(1, len(panels), figsize=(12, 3.5), layout="constrained")
    for axis, (title, label, across, up, style) in zip(axes, panels, strict=True):
        axis.plot(across, up, style)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
