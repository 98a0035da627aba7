"""The demo's report: `report.json` for programs, `report.md` and `report.png` for people."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from onlinerlhf.local.evaluate import Evaluation
from onlinerlhf.local.snapshot import LedgerView

SIDE_BY_SIDE = 20
Steps = Sequence[Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a demo run showed."""

    run_id: str
    evaluation: Evaluation
    num_submitted: int
    """Training prompts that simulated users sent."""
    versions_applied: int
    """Versions that the rollout worker took in flight, after the first."""
    ledger: LedgerView
    seconds: float
    phases: Mapping[str, float]
    """Seconds of each phase."""
    steps: Steps
    """The learner's steps.jsonl."""

    def as_json(self) -> dict[str, object]:
        """What `report.json` holds."""
        rate = self.evaluation.win_rate
        return {
            "win_rate": round(rate.rate, 4),
            "win_rate_low": round(rate.low, 4),
            "win_rate_high": round(rate.high, 4),
            "prompts": rate.num_prompts,
            "versions_applied": self.versions_applied,
            "ledger": asdict(self.ledger),
            "seconds": round(self.seconds, 1),
            "run": self.run_id,
            "sft_gold_score": round(self.evaluation.sft_gold, 4),
            "ppo_gold_score": round(self.evaluation.ppo_gold, 4),
            "ppo_versions": list(self.evaluation.ppo_versions),
            "prompts_submitted": self.num_submitted,
            "steps": len(self.steps),
            "phase_seconds": {name: round(value, 1) for name, value in self.phases.items()},
        }


def write_report(outcome: Outcome, directory: Path) -> None:
    """All three files."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.json").write_text(json.dumps(outcome.as_json(), indent=2) + "\n")
    (directory / "report.md").write_text(as_markdown(outcome))
    draw(outcome.steps, directory / "report.png")


def read_steps(path: Path) -> list[dict[str, float]]:
    """One record a step; empty before the first."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def as_markdown(outcome: Outcome) -> str:
    """The report for people."""
    return "\n".join([*_summary(outcome), *_table_of_steps(outcome.steps), *_answers(outcome.evaluation)]) + "\n"


def _summary(outcome: Outcome) -> list[str]:
    rate, ledger, evaluation = outcome.evaluation.win_rate, outcome.ledger, outcome.evaluation
    oldest, newest = evaluation.ppo_versions
    versions = f"version {newest}" if oldest == newest else f"versions {oldest} to {newest}"
    dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(ledger.dropped.items()))
    phases = ", ".join(f"{name} {value:.0f} s" for name, value in outcome.phases.items())
    win = (
        f"**{rate.rate:.1%}** win rate of the PPO policy ({versions}) over the SFT policy (version 1), 95% interval "
        f"{rate.low:.1%} to {rate.high:.1%}, ties counted half, on {rate.num_prompts} prompts of held-out users, "
        "each answered once at temperature 1."
    )
    sums = (
        f"admitted {ledger.admitted} = trained {ledger.trained} + dropped {ledger.num_dropped} + "
        f"pending {ledger.num_pending}; imbalance {ledger.imbalance}{f' ({dropped})' if dropped else ''}"
    )
    facts = {
        "gold score, mean": f"SFT {evaluation.sft_gold:.3f}, PPO {evaluation.ppo_gold:.3f}",
        "training prompts": f"{outcome.num_submitted}",
        "PPO steps": f"{len(outcome.steps)}",
        "versions applied in flight": f"{outcome.versions_applied}",
        "ledger": sums,
        "time": f"{outcome.seconds:.0f} s: {phases}",
    }
    rows = [f"| {name} | {value} |" for name, value in facts.items()]
    picture = "![reward, KL, staleness, version over time](report.png)"
    return ["# PPO against SFT", "", win, "", "| | |", "|---|---|", *rows, "", picture, ""]


def _table_of_steps(steps: Steps) -> list[str]:
    shown = steps[:: max(1, len(steps) // 12)]
    rows = [
        f"| {step['step']:.0f} | {step['version']:.0f} | {step['score_mean']:.3f} | "
        f"{step['kl_per_sequence_nats']:.2f} | {step['staleness_mean']:.2f} | {step['staleness_max']:.0f} |"
        for step in shown
    ]
    head = ["| step | version | reward | KL, nats a sequence | staleness, mean | max |", "|---|---|---|---|---|---|"]
    return ["## Training", "", *head, *rows, ""]


def _answers(evaluation: Evaluation) -> list[str]:
    """Prompts of every use case, side by side; the gold judge's score before each answer."""
    lines = ["## Side by side", "", "| prompt | SFT | PPO |", "|---|---|---|"]
    pairs = list(zip(evaluation.sft, evaluation.ppo, strict=True))
    for sft, ppo in pairs[:: max(1, len(pairs) // SIDE_BY_SIDE)]:
        cells = (
            _cell(sft.prompt.text),
            f"{sft.gold_score:.2f} {_cell(sft.text)}",
            f"{ppo.gold_score:.2f} {_cell(ppo.text)}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cell(text: str) -> str:
    return text.strip().replace("|", "\\|").replace("\n", "<br>")


def draw(steps: Steps, path: Path) -> None:
    """Four panels over the learner's wall-clock time."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    start = steps[0]["time_seconds"] if steps else 0.0
    minutes = [(step["time_seconds"] - start) / 60 for step in steps]
    panels: Sequence[tuple[str, Mapping[str, str]]] = (
        ("reward (model score, mean)", {"score_mean": "reward"}),
        ("KL to the SFT policy (nats a sequence)", {"kl_per_sequence_nats": "KL"}),
        ("staleness (versions)", {"staleness_mean": "mean", "staleness_max": "max"}),
        ("policy version", {"version": "version"}),
    )
    figure, axes = plt.subplots(2, 2, figsize=(10, 6), sharex=True, layout="constrained")
    for axis, (title, lines) in zip(axes.flat, panels, strict=True):
        for key, label in lines.items():
            axis.plot(minutes, [step[key] for step in steps], label=label)
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
        if len(lines) > 1:
            axis.legend(fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("minutes since the first step")
    figure.savefig(path, dpi=120)
    plt.close(figure)
