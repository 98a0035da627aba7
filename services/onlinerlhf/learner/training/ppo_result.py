"""What an offline PPO training leaves beside its models: `steps.jsonl`, and `report.json` made of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onlinerlhf.learner.training.ppo_train_config import PPOTrainConfig

_PHASES = ("sampling", "scoring", "learning")
_SUMMARISED = ("score_mean", "kl_per_sequence_nats")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedPPO:
    """A finished training."""

    out: Path
    """The policy: a transformers directory. `out / "ema"` is the moving average of its weights, where one is kept."""
    num_steps: int
    num_skipped: int
    """Of these, steps that were left out because something in them was not finite."""
    seconds: float
    """Of all steps."""
    history: tuple[dict[str, float], ...]
    """`steps.jsonl`: a step's metrics, and what `on_step` added; of a skipped one only that it was."""


def read_trained(out: Path) -> TrainedPPO:
    """What a complete directory says."""
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return TrainedPPO(
        out=out,
        num_steps=report["num_steps"],
        num_skipped=report["num_skipped_steps"],
        seconds=report["seconds"],
        history=tuple(read_steps(out)),
    )


def read_steps(out: Path) -> list[dict[str, float]]:
    """One record a step."""
    return [json.loads(line) for line in (out / "steps.jsonl").read_text(encoding="utf-8").splitlines()]


def as_report(
    history: Sequence[Mapping[str, float]], *, counts: Mapping[str, int], config: PPOTrainConfig
) -> dict[str, Any]:
    """What `report.json` holds: where the training began and ended, and what the time went to."""
    applied = [numbers for numbers in history if "skipped" not in numbers]
    tenth = max(1, len(applied) // 10)
    phases = {phase: round(sum(numbers[f"{phase}_seconds"] for numbers in applied), 1) for phase in _PHASES}
    return {
        "stage": "ppo",
        **counts,
        "first_tenth": _means(applied[:tenth]),
        "last_tenth": _means(applied[-tenth:]),
        "seconds": round(sum(phases.values()), 1),
        "phase_seconds": phases,
        "config": config.model_dump(mode="json"),
    }


def _means(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(step[name] for step in steps) / len(steps) for name in _SUMMARISED if steps}
