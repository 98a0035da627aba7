"""How well a reward model agrees with labelers on rankings that it was not trained on."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from transformers import PreTrainedModel

from onlinerlhf.algorithms.batching import pack_rows
from onlinerlhf.learner.training.calibration import JudgedPair, accuracy, calibration
from onlinerlhf.learner.training.data import Ranking
from onlinerlhf.learner.training.ranking_split import RankingSplit
from onlinerlhf.learner.training.reward_model import scores_of

UNNAMED = "unnamed"
Judged = tuple[Ranking, list[JudgedPair]]


@torch.no_grad()
def judged(model: PreTrainedModel, rankings: Sequence[Ranking], *, micro_batch_tokens: int) -> list[Judged]:
    """Each ranking with its pairs as the model scores them."""
    found: list[Judged] = []
    for rows in pack_rows([ranking.num_tokens for ranking in rankings], max_tokens=micro_batch_tokens):
        batch = [rankings[row] for row in rows]
        for ranking, scores in zip(batch, scores_of(model, batch), strict=True):
            found.append((ranking, _pairs(ranking, scores.tolist())))
    return found


def agreement(model: PreTrainedModel, split: RankingSplit, *, micro_batch_tokens: int) -> dict[str, Any]:
    """Accuracy on prompts and on labelers never trained on, by labeler, and calibration over all of them."""
    new_prompts = judged(model, split.new_prompts, micro_batch_tokens=micro_batch_tokens)
    new_labelers = judged(model, split.new_labelers, micro_batch_tokens=micro_batch_tokens)
    everything = [*new_prompts, *new_labelers]
    return {
        "new_prompts": asdict(accuracy([pairs for _, pairs in new_prompts])),
        "new_labelers": asdict(accuracy([pairs for _, pairs in new_labelers])) if new_labelers else None,
        "by_labeler": {
            **_by_labeler(new_prompts, is_trained_on=True),
            **_by_labeler(new_labelers, is_trained_on=False),
        },
        "calibration": calibration([pair for _, pairs in everything for pair in pairs]),
    }


def _by_labeler(found: Sequence[Judged], *, is_trained_on: bool) -> dict[str, dict[str, Any]]:
    by_labeler: dict[str, list[list[JudgedPair]]] = defaultdict(list)
    for ranking, pairs in found:
        by_labeler[ranking.labeler or UNNAMED].append(pairs)
    return {
        name: {**asdict(accuracy(theirs)), "is_trained_on": is_trained_on}
        for name, theirs in sorted(by_labeler.items())
    }


def _pairs(ranking: Ranking, scores: Sequence[float]) -> list[JudgedPair]:
    gaps = [
        scores[winner] - scores[loser]
        for winner, better in enumerate(ranking.ranks)
        for loser, worse in enumerate(ranking.ranks)
        if 0 <= better < worse
    ]
    return [JudgedPair(gap=gap, weight=1 / len(gaps)) for gap in gaps]
