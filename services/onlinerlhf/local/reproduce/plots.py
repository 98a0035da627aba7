"""Two pictures: over-optimisation, and what the alignment tax buys."""

from pathlib import Path
from statistics import mean
from typing import Any

from onlinerlhf.local.reproduce.claims import NAMES
from onlinerlhf.local.reproduce.layout import PPO, PTX, STAGES
from onlinerlhf.local.reproduce.results import Results

_COLOURS = {PPO: "tab:red", PTX: "tab:blue"}


def draw_overoptimisation(results: Results, path: Path) -> None:
    """Gold score and reward-model score against sqrt(KL) during training (Gao et al. 2022, figure 1)."""
    figure, axes = _figure(2)
    titles = {"watched_reward": "reward-model score (what is optimised)", "watched_gold": "gold score (what is wanted)"}
    for axis, (key, title) in zip(axes, titles.items(), strict=True):
        for run, colour in _COLOURS.items():
            for place, seed in enumerate(results.seeds):
                points = seed.curves[run]
                x = [max(0.0, point["watched_kl_nats"]) ** 0.5 for point in points]
                label = NAMES[run] if place == 0 else None
                axis.plot(x, [point[key] for point in points], color=colour, marker=".", alpha=0.7, label=label)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("sqrt(KL to the SFT policy), KL in nats a sequence")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    _save(figure, path)


def draw_tax(results: Results, path: Path) -> None:
    """Win rate over SFT against the language-model loss: small points are seeds, large ones their mean."""
    figure, axes = _figure(1)
    axis = axes[0]
    for stage, colour in zip(STAGES, ("tab:grey", "tab:brown", "tab:green", "tab:red", "tab:blue"), strict=True):
        rates = [seed.rate for seed in results.win_rate(stage).seeds]
        losses = [seed.stages[stage].lm_loss for seed in results.seeds]
        axis.scatter(losses, rates, color=colour, s=18, alpha=0.5)
        axis.scatter([mean(losses)], [mean(rates)], color=colour, s=90, label=NAMES[stage])
    axis.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    axis.set_xlabel("language-model loss on unseen pretraining text (nats a token)")
    axis.set_ylabel("win rate over SFT, gold judge")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    _save(figure, path)


def _figure(num_panels: int) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    width = 5.0 if num_panels > 1 else 6.5
    figure, axes = plt.subplots(1, num_panels, figsize=(width * num_panels, 4), layout="constrained", squeeze=False)
    return figure, axes[0]


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
