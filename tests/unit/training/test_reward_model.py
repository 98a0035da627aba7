"""Reward model training on two-layer models."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from onlinerlhf.algorithms.preference import preference_loss, ranking_pairs
from onlinerlhf.learner.bootstrap import tiny_models
from onlinerlhf.learner.training.agreement import judged
from onlinerlhf.learner.training.data import Example, Ranking
from onlinerlhf.learner.training.objective import micro_batches
from onlinerlhf.learner.training.progress import Silence
from onlinerlhf.learner.training.reward_config import RewardConfig
from onlinerlhf.learner.training.reward_model import (
    centre,
    ranking_objective,
    reward_model_from,
    scores_of,
    train_on_rankings,
)
from onlinerlhf.models.packed import pack, packed_scores
from onlinerlhf.models.scalar import reward_scores

VOCAB = 300
FAST = RewardConfig(batch_size=8, learning_rate=3e-3, device="cpu", micro_batch_tokens=400)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    tiny_models(path, tie_word_embeddings=False)
    return path


@pytest.fixture
def model(models: Path) -> PreTrainedModel:
    return reward_model_from(models / "sft", seed=0)


def shorter_is_better(count: int, seed: int = 0) -> list[Ranking]:
    """Responses of 2 to 9 tokens, 4 to 9 a prompt, ranked by length; equal lengths are ties."""
    draw = random.Random(seed)
    rankings = []
    for _ in range(count):
        lengths = [draw.randint(2, 9) for _ in range(draw.randint(4, 9))]
        rankings.append(
            Ranking(
                prompt=[draw.randrange(10, VOCAB) for _ in range(5)],
                responses=[[draw.randrange(10, VOCAB) for _ in range(length - 1)] + [2] for length in lengths],
                ranks=[sorted(set(lengths)).index(length) for length in lengths],
            )
        )
    return [ranking for ranking in rankings if ranking.has_pairs]


def accuracy(model: PreTrainedModel, rankings: Sequence[Ranking]) -> float:
    pairs = [pair for _, pairs in judged(model, rankings, micro_batch_tokens=2_000) for pair in pairs]
    return sum(pair.is_right for pair in pairs) / len(pairs)


def test_it_learns_to_tell_pairs_apart_and_generalises(model: PreTrainedModel) -> None:
    outcome = train_on_rankings(model, shorter_is_better(320), FAST, progress=Silence())

    assert outcome.num_steps == 40
    assert outcome.final_loss < 0.35
    assert accuracy(model, shorter_is_better(30, seed=1)) > 0.9


def test_the_loss_is_that_of_every_response_scored_alone(model: PreTrainedModel) -> None:
    rankings = [
        Ranking(prompt=[5, 6], responses=[[10, 2], [11, 12, 2], [10, 2], [13, 2]], ranks=[0, 1, 0, 2]),
        Ranking(prompt=[7], responses=[[14, 2], [15, 16, 17, 2]], ranks=[1, 0]),
    ]
    ranks = torch.tensor([[0, 1, 0, 2], [1, 0, -1, -1]])
    scores = torch.zeros(2, 4)
    for row, ranking in enumerate(rankings):
        for column, response in enumerate(ranking.responses):
            ids = torch.tensor([ranking.prompt + response])
            scores[row, column] = reward_scores(model, ids, torch.ones_like(ids))[0]
    _, stats = preference_loss(scores, ranking_pairs(ranks))

    total, numbers = ranking_objective(model).loss(rankings)

    assert float(total.detach()) / 2 == pytest.approx(stats.loss, abs=1e-6)
    assert numbers["pair_accuracy"] / 2 == pytest.approx(stats.pair_accuracy)


def test_equal_responses_are_forwarded_once_and_ties_are_no_pairs(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    forwarded: list[int] = []

    def counted(scored: PreTrainedModel, packed: object) -> torch.Tensor:
        forwarded.append(len(packed.lengths))  # type: ignore[attr-defined]
        return packed_scores(scored, packed)  # type: ignore[arg-type]

    monkeypatch.setattr("onlinerlhf.learner.training.reward_model.packed_scores", counted)
    ranking = Ranking(prompt=[5], responses=[[10, 2], [11, 2], [10, 2], [12, 2]], ranks=[0, 1, 0, 1])

    (scores,) = scores_of(model, [ranking])
    ((_, pairs),) = judged(model, [ranking], micro_batch_tokens=100)

    assert forwarded == [3, 3]
    assert scores[0] == scores[2]
    assert len(pairs) == 4
    assert pairs[0].weight == 0.25


def test_cutting_a_batch_into_passes_does_not_change_its_gradient(model: PreTrainedModel) -> None:
    rankings, objective = shorter_is_better(16), ranking_objective(model)
    gradients = []
    for max_tokens in (100, 100_000):
        model.zero_grad()
        for part in micro_batches(rankings, objective, max_tokens=max_tokens):
            objective.loss(part)[0].backward()  # type: ignore[no-untyped-call]
        gradients.append(torch.cat([x.grad.flatten() for x in model.parameters() if x.grad is not None]))

    assert float(gradients[0].abs().max()) > 0.1
    assert float((gradients[0] - gradients[1]).abs().max()) < 1e-4


def test_the_learning_rate_ends_at_a_tenth_of_its_peak_by_default() -> None:
    config = RewardConfig()

    assert (config.epochs, config.batch_size, config.learning_rate, config.final_share) == (1, 64, 9e-6, 0.1)


def test_demonstrations_score_0_on_average(model: PreTrainedModel) -> None:
    draw = random.Random(0)
    demonstrations = [
        Example(prompt=[draw.randrange(10, VOCAB) for _ in range(draw.randint(1, 9))], response=[11, 12, 2])
        for _ in range(50)
    ]

    offset = centre(model, demonstrations, micro_batch_tokens=100)

    scores = packed_scores(model, pack([example.prompt + example.response for example in demonstrations]))
    assert abs(float(scores.detach().mean())) < 1e-5
    assert offset == model.config.score_offset != 0.0


def test_a_new_reward_model_starts_from_the_policys_layers(models: Path) -> None:
    first, again = (reward_model_from(models / "sft", seed=3) for _ in range(2))
    other = reward_model_from(models / "sft", seed=4)

    assert torch.equal(first.score.weight, again.score.weight)
    assert not torch.equal(first.score.weight, other.score.weight)
    assert torch.equal(first.get_input_embeddings().weight, other.get_input_embeddings().weight)
    assert first.config.score_offset == 0.0


def test_making_one_leaves_the_random_state_alone(models: Path) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()

    reward_model_from(models / "sft", seed=3)

    assert torch.equal(torch.get_rng_state(), before)
