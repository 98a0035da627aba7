"""Pictures of a training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onlinerlhf.learner.training.selection import REWARD_SCORE, VALIDATION_LOSS


def draw_epochs(epochs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Losses and, where it was measured, the reward score by epoch; the chosen epoch is marked."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    panels = [("loss (nats a response token)", {"train_loss": "training", VALIDATION_LOSS: "validation"})]
    if REWARD_SCORE in epochs[0]:
        panels.append(("reward-model score (mean)", {REWARD_SCORE: "validation prompts"}))
    numbers = [record["epoch"] for record in epochs]
    chosen = next(record["epoch"] for record in epochs if record["chosen"])
    figure, axes = plt.subplots(1, len(panels), figsize=(5 * len(panels), 3.5), layout="constrained", squeeze=False)
    for axis, (title, lines) in zip(axes.flat, panels, strict=True):
        for key, label in lines.items():
            axis.plot(numbers, [record[key] for record in epochs], marker="o", markersize=3, label=label)
        axis.axvline(chosen, color="grey", linestyle="--", linewidth=1, label="chosen")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
