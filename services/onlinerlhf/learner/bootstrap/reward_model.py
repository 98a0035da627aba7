"""Stage 3: the reward model, from rankings of the SFT model's own responses."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from onlinerlhf.algorithms.preference import preference_loss, ranking_pairs
from onlinerlhf.learner.bootstrap.fit import fit, pad_right
from onlinerlhf.learner.bootstrap.progress import Progress
from onlinerlhf.learner.bootstrap.sample import sample
from onlinerlhf.learner.bootstrap.sft import Example
from onlinerlhf.learner.bootstrap.sizes import Size
from onlinerlhf.models.policy import load_policy, prepared
from onlinerlhf.models.scalar import reward_scores
from onlinerlhf.models.tokenizer import PromptTokenizer
from onlinerlhf.world.draw import training_tasks
from onlinerlhf.world.labeler import LABELERS, MAX_RESPONSES, MIN_RESPONSES, gold_agreement, rank
from onlinerlhf.world.tasks import Task

Item = TypeVar("Item")
_PROMPTS_SAMPLED_TOGETHER = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Responses to one prompt, and their ranks: 0 is best, equal texts share a rank."""

    task: Task
    prompt: list[int]
    responses: list[list[int]]
    ranks: list[int]


def collect_rankings(
    policy: PreTrainedModel, tokenizer: PromptTokenizer, size: Size, count: int, *, seed: int, progress: Progress
) -> list[Ranking]:
    """Samples 4 to 9 responses to each prompt and has a simulated labeler rank them.

    Prompts whose responses are all the same text teach nothing and are replaced by other prompts.
    """
    rng = random.Random(f"rankings/{seed}")
    generator = torch.Generator().manual_seed(seed)
    tasks = training_tasks(rng)
    rankings: list[Ranking] = []
    while len(rankings) < count:
        chosen = [
            (task, rng.randint(MIN_RESPONSES, MAX_RESPONSES)) for task in islice(tasks, _PROMPTS_SAMPLED_TOGETHER)
        ]
        prompts = [tokenizer.encode_prompt(task.prompt) for task, k in chosen for _ in range(k)]
        sampled = iter(sample(policy, tokenizer, prompts, max_tokens=size.max_response_tokens, generator=generator))
        ranked = [_ranking(task, tokenizer, list(islice(sampled, k)), rng) for task, k in chosen]
        kept = [ranking for ranking in ranked if max(ranking.ranks) > 0][: count - len(rankings)]
        rankings += kept
        progress.advance(steps=len(kept))
    return rankings


def _ranking(task: Task, tokenizer: PromptTokenizer, responses: list[list[int]], rng: random.Random) -> Ranking:
    texts = [tokenizer.decode(response) for response in responses]
    order = rank(task, texts, rng.choice(LABELERS), rng)
    ranks = [0] * len(texts)
    for place, (before, index) in enumerate(zip((None, *order[:-1]), order, strict=True)):
        ranks[index] = ranks[before] if before is not None and texts[before] == texts[index] else place
    return Ranking(task=task, prompt=tokenizer.encode_prompt(task.prompt), responses=responses, ranks=ranks)


def reward_model_from(path: Path, *, seed: int) -> PreTrainedModel:
    """The SFT model with its output layer replaced by one that gives a single score, near 0 at first."""
    torch.manual_seed(seed)
    policy = load_policy(path)
    config = type(policy.config)(**policy.config.to_dict())
    config.architectures, config.num_labels = None, 1
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    model.base_model.load_state_dict(policy.base_model.state_dict())
    torch.nn.init.normal_(model.score.weight, std=1.0 / (model.config.hidden_size + 1) ** 0.5)
    return prepared(model)


def train_reward_model(
    model: PreTrainedModel,
    tokenizer: PromptTokenizer,
    rankings: list[Ranking],
    size: Size,
    *,
    seed: int,
    progress: Progress,
) -> float:
    """One epoch; all pairs of a prompt are one batch element. Returns the final loss in nats a pair."""

    def loss_of(batch: list[Ranking]) -> torch.Tensor:
        scores, ranks = _score_rankings(model, tokenizer, batch)
        return preference_loss(scores, ranking_pairs(ranks))[0]

    order = random.Random(seed).sample(rankings, len(rankings))
    batches = [order[at : at + size.ranking_batch] for at in range(0, len(order), size.ranking_batch)]
    return fit(model, batches, loss_of, num_steps=len(batches), rates=size.reward_rates, progress=progress)


def _score_rankings(
    model: PreTrainedModel, tokenizer: PromptTokenizer, batch: Sequence[Ranking]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and ranks, both [N, K]; missing responses have rank -1 and score 0."""
    flat = [ranking.prompt + response for ranking in batch for response in ranking.responses]
    ids, mask = pad_right(flat, tokenizer.pad_token_id)
    ranks = torch.full((len(batch), MAX_RESPONSES), -1)
    for row, ranking in enumerate(batch):
        ranks[row, : len(ranking.ranks)] = torch.tensor(ranking.ranks)
    scores = torch.zeros(len(batch), MAX_RESPONSES)
    return scores.masked_scatter(ranks >= 0, reward_scores(model, ids, mask)), ranks


@torch.no_grad()
def pair_accuracy(model: PreTrainedModel, tokenizer: PromptTokenizer, rankings: Sequence[Ranking], size: Size) -> float:
    """Share of ranked pairs in which the labeler's choice has the higher score, averaged over prompts."""
    total = 0.0
    for batch in _chunks(rankings, size.ranking_batch):
        scores, ranks = _score_rankings(model, tokenizer, batch)
        total += preference_loss(scores, ranking_pairs(ranks))[1].pair_accuracy * len(batch)
    return total / len(rankings)


@torch.no_grad()
def centre(model: PreTrainedModel, tokenizer: PromptTokenizer, data: Sequence[Example]) -> None:
    """Sets `score_offset` so that these demonstrations score 0 on average."""
    model.config.score_offset = 0.0
    scores = [
        reward_scores(
            model, *pad_right([example.prompt + example.response for example in batch], tokenizer.pad_token_id)
        )
        for batch in _chunks(data, 64)
    ]
    model.config.score_offset = float(torch.cat(scores).mean())


def _chunks(items: Sequence[Item], count: int) -> Iterator[Sequence[Item]]:
    for at in range(0, len(items), count):
        yield items[at : at + count]


def ceiling(tokenizer: PromptTokenizer, rankings: Sequence[Ranking]) -> float:
    """Pair accuracy that the gold judge itself would get on these noisy rankings, averaged over prompts."""
    agreements = [
        gold_agreement(ranking.task, [tokenizer.decode(response) for response in ranking.responses], ranking.ranks)
        for ranking in rankings
    ]
    return sum(agreements) / len(agreements)
