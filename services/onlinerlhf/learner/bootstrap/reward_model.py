"""Stage 3: the reward model, trained as `onlinerlhf train reward` does, on simulated labelers' rankings."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from onlinerlhf.learner.bootstrap.muon import muon_and_adamw
from onlinerlhf.learner.bootstrap.rankings import Collector, RankedTask, ceiling
from onlinerlhf.learner.bootstrap.sizes import Size
from onlinerlhf.learner.training.agreement import judged
from onlinerlhf.learner.training.calibration import JudgedPair, accuracy, calibration
from onlinerlhf.learner.training.progress import Reporter
from onlinerlhf.learner.training.reward_config import RewardConfig
from onlinerlhf.learner.training.reward_model import train_on_rankings
from onlinerlhf.models.tokenizer import PromptTokenizer
from onlinerlhf.world.draw import training_tasks
from onlinerlhf.world.labeler import HELD_OUT_LABELERS, LABELERS
from onlinerlhf.world.tasks import Task
from onlinerlhf.world.users import prompts, users

MICRO_BATCH_TOKENS = 8192
_NUM_USERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Rankings:
    """What the stage learns from and is measured on. Held-out users asked everything that is measured on."""

    train: list[RankedTask]
    new_prompts: list[RankedTask]
    """By the labelers who ranked `train`."""
    new_labelers: list[RankedTask]
    """By labelers who ranked nothing of it."""


def collect_rankings(
    policy: PreTrainedModel, tokenizer: PromptTokenizer, size: Size, *, seed: int, progress: Reporter
) -> Rankings:
    """Samples responses and has them ranked."""
    collector = Collector(policy=policy, tokenizer=tokenizer, max_response_tokens=size.max_response_tokens, seed=seed)
    stage = progress.start("collecting rankings", size.num_rankings + 2 * size.num_held_out_rankings)
    measured = _held_out_tasks(size, seed=seed)
    return Rankings(
        train=collector.collect(
            training_tasks(random.Random(f"rankings/{seed}")), LABELERS, size.num_rankings, progress=stage
        ),
        new_prompts=collector.collect(measured, LABELERS, size.num_held_out_rankings, progress=stage),
        new_labelers=collector.collect(measured, HELD_OUT_LABELERS, size.num_held_out_rankings, progress=stage),
    )


def _held_out_tasks(size: Size, *, seed: int) -> Iterator[Task]:
    """What held-out users ask, each thing once; more than enough of it, as some tasks are passed over."""
    asked = prompts(users(seed, count=_NUM_USERS).held_out, 4 * size.num_held_out_rankings, seed=seed)
    return (prompt.task for prompt in asked)


def train_reward_model(
    model: PreTrainedModel, rankings: Sequence[RankedTask], size: Size, *, seed: int, progress: Reporter
) -> float:
    """One epoch; all pairs of a prompt are one batch element. Returns the final loss in nats a pair."""
    config = RewardConfig(
        batch_size=size.ranking_batch,
        warmup_share=0.05,
        micro_batch_tokens=MICRO_BATCH_TOKENS,
        seed=seed,
        device="cpu",
    )
    outcome = train_on_rankings(
        model,
        [each.ranking for each in rankings],
        config,
        optimizers=muon_and_adamw(size.reward_rates),
        progress=progress,
    )
    return outcome.final_loss


def measurements(model: PreTrainedModel, tokenizer: PromptTokenizer, rankings: Rankings) -> dict[str, Any]:
    """How often the model agrees with labelers, and how often the gold judge would."""

    def pairs_of(ranked: Sequence[RankedTask]) -> list[list[JudgedPair]]:
        found = judged(model, [each.ranking for each in ranked], micro_batch_tokens=MICRO_BATCH_TOKENS)
        return [pairs for _, pairs in found]

    by_new_labelers = pairs_of(rankings.new_labelers)
    agreed, possible = accuracy(by_new_labelers).accuracy, ceiling(tokenizer, rankings.new_labelers)
    calibrated = calibration([pair for pairs in by_new_labelers for pair in pairs])
    return {
        "pair_accuracy": round(accuracy(pairs_of(rankings.new_prompts)).accuracy, 4),
        "pair_accuracy_ceiling": round(ceiling(tokenizer, rankings.new_prompts), 4),
        "held_out_labelers_accuracy": round(agreed, 4),
        "held_out_labelers_ceiling": round(possible, 4),
        "held_out_labelers_ratio": round(agreed / possible, 4),
        "calibration_error": round(calibrated.expected_error, 4),
    }
