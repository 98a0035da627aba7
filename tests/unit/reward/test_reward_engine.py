"""The engine against a direct forward pass, and what it refuses."""

from pathlib import Path

import pytest
import torch

from onlinerlhf.core.errors import InvalidInput, StartupError
from onlinerlhf.learner.bootstrap.tiny import tiny_models
from onlinerlhf.models.scalar import load_reward_model, reward_scores
from onlinerlhf.reward.engine import RewardEngine, ScoreItem, ScoringFailed


@pytest.fixture(scope="module")
def reward_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny")
    tiny_models(out, tie_word_embeddings=True, seed=3)
    return out / "reward"


@pytest.fixture(scope="module")
def engine(reward_dir: Path) -> RewardEngine:
    return RewardEngine(reward_dir, batch_tokens=64, num_threads=1)


def item(*, prompt: int, response: int) -> ScoreItem:
    return ScoreItem(prompt_token_ids=tuple(range(10, 10 + prompt)), response_token_ids=tuple(range(5, 5 + response)))


def test_scores_are_those_of_each_sequence_alone_whatever_it_is_batched_with(
    engine: RewardEngine, reward_dir: Path
) -> None:
    items = [item(prompt=3, response=20), item(prompt=2, response=1), item(prompt=9, response=7)]
    model = load_reward_model(reward_dir)
    alone = []
    for each in items:
        ids = torch.tensor([each.prompt_token_ids + each.response_token_ids])
        with torch.inference_mode():
            alone.append(reward_scores(model, ids, torch.ones_like(ids)).item())
    assert engine.score(items) == pytest.approx(alone, abs=1e-5)


def test_the_version_names_the_weights(engine: RewardEngine, reward_dir: Path) -> None:
    assert engine.version == RewardEngine(reward_dir, batch_tokens=64, num_threads=1).version
    assert len(engine.version) >= 8


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (ScoreItem(prompt_token_ids=(), response_token_ids=(1,)), "empty"),
        (ScoreItem(prompt_token_ids=(1,), response_token_ids=()), "empty"),
        (ScoreItem(prompt_token_ids=(1,), response_token_ids=(10**6,)), "unknown_token"),
        (ScoreItem(prompt_token_ids=(1,) * 100_000, response_token_ids=(1,)), "too_many_tokens"),
    ],
)
def test_what_the_model_cannot_read_is_refused_with_its_reason(
    engine: RewardEngine, bad: ScoreItem, reason: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        engine.score([item(prompt=2, response=2), bad])
    assert caught.value.reason == reason


def test_a_score_that_is_not_finite_is_an_error_and_never_a_number(reward_dir: Path) -> None:
    engine = RewardEngine(reward_dir, batch_tokens=64, num_threads=1)
    with torch.no_grad():
        engine._model.score.weight.fill_(float("nan"))
    with pytest.raises(ScoringFailed):
        engine.score([item(prompt=2, response=2)])


def test_a_directory_that_holds_no_reward_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="nothing-here"):
        RewardEngine(tmp_path / "nothing-here", batch_tokens=64, num_threads=1)
