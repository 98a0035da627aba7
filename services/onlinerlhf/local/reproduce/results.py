"""All that was measured, seed by seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from onlinerlhf.local.reproduce.jobs import watched
from onlinerlhf.local.reproduce.layout import MODELS, PPO, PTX, SFT, SeedDirectory
from onlinerlhf.local.reproduce.measure import Answers, Measured
from onlinerlhf.local.reproduce.statistics import Comparison, compared, outcomes

Curve = Sequence[Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedResult:
    """Of one seed."""

    seed: int
    stages: Mapping[str, Measured]
    """By name, those of `layout.STAGES`."""
    averaged: Mapping[str, Measured]
    """PPO and PPO-ptx by the moving average of their weights, where `stages` has the last ones."""
    curves: Mapping[str, Curve]
    """PPO and PPO-ptx during training; the first point is the SFT policy."""
    prompted: Mapping[str, Any]
    """Which wording the base model answers best to, and the gold scores of all."""
    num_steps: Mapping[str, int]
    seconds: Mapping[str, float]
    """Of each job."""
    bootstrap: Mapping[str, Any]
    """What each stage of making the models measured; empty for tiny ones."""


def load_result(directory: SeedDirectory) -> SeedResult:
    """A seed whose jobs are all done."""
    models, *trainings = (directory.result(job) or {} for job in (MODELS, PPO, PTX))
    stages = {name: Measured.from_json(found) for name, found in models["measured"].items()}
    averaged, curves = {}, {}
    for name, training in zip((PPO, PTX), trainings, strict=True):
        stages[name] = Measured.from_json(training["measured"]["final"])
        averaged[name] = Measured.from_json(training["measured"]["ema"])
        points = [step for step in training["history"] if "watched_gold" in step]
        curves[name] = [_start(stages[SFT], directory.settings.num_watched), *points]
    return SeedResult(
        seed=directory.seed,
        stages=stages,
        averaged=averaged,
        curves=curves,
        prompted=models["prompted"],
        num_steps={name: training["num_steps"] for name, training in zip((PPO, PTX), trainings, strict=True)},
        seconds={
            # Models that were there already took time, too.
            MODELS: max(models["seconds"], _bootstrap_seconds(models["bootstrap"])),
            **{name: training["seconds"] for name, training in zip((PPO, PTX), trainings, strict=True)},
        },
        bootstrap=models["bootstrap"],
    )


def _bootstrap_seconds(bootstrap: Mapping[str, Any]) -> float:
    return sum(float(stage["seconds"]) for stage in bootstrap.values() if isinstance(stage, Mapping))


def _start(sft: Measured, count: int) -> Mapping[str, float]:
    """The SFT policy on the watched prompts."""
    answers = sft.answers
    first = Answers(
        texts=answers.texts[:count],
        gold_scores=answers.gold_scores[:count],
        reward_scores=answers.reward_scores[:count],
        kl_nats=0.0,
    )
    return {"step": 0, **watched(Measured(answers=first, lm_loss=sft.lm_loss))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Of all seeds."""

    seeds: tuple[SeedResult, ...]

    def win_rate(self, stage: str, rival: str = SFT) -> Comparison:
        """Of one stage over another, by the gold judge."""
        return compared([self._outcomes(seed.stages[stage], seed.stages[rival]) for seed in self.seeds])

    def win_rate_of_average(self, stage: str) -> Comparison:
        """Of the averaged weights of a training over SFT."""
        return compared([self._outcomes(seed.averaged[stage], seed.stages[SFT]) for seed in self.seeds])

    def reward_model_ratio(self) -> float | None:
        """Pair accuracy on labelers that the reward model never saw, over what a perfect judge gets; mean over seeds.

        None: not every seed measured it.
        """
        found = [seed.bootstrap.get("reward", {}).get("held_out_labelers_ratio") for seed in self.seeds]
        known = [ratio for ratio in found if ratio is not None]
        return mean(known) if known and len(known) == len(found) else None

    def lm_loss(self, stage: str) -> float:
        """Nats a token, mean over seeds."""
        return mean(seed.stages[stage].lm_loss for seed in self.seeds)

    def gold(self, stage: str) -> float:
        """Mean gold score."""
        return mean(mean(seed.stages[stage].answers.gold_scores) for seed in self.seeds)

    def reward(self, stage: str) -> float:
        """Mean reward-model score."""
        return mean(mean(seed.stages[stage].answers.reward_scores) for seed in self.seeds)

    def kl_nats(self, stage: str) -> float | None:
        """KL to the SFT policy, nats a sequence; None where it has no meaning."""
        found = [seed.stages[stage].answers.kl_nats for seed in self.seeds]
        known = [number for number in found if number is not None]
        return mean(known) if len(known) == len(found) else None

    @staticmethod
    def _outcomes(one: Measured, other: Measured) -> list[float]:
        return outcomes(one.answers.gold_scores, other.answers.gold_scores)
