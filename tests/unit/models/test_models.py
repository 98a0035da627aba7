"""Policy, reward model and value network read from directories."""

from pathlib import Path

import pytest
import torch

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.models.policy import load_policy, save_model
from onlinerlhf.models.scalar import (
    load_reward_model,
    reward_scores,
    value_model_from_reward,
)
from onlinerlhf.models.version import model_version
from padded_passes import token_logprobs, token_values

IDS = torch.tensor([[2, 40, 41, 42, 3, 50, 1], [2, 60, 3, 70, 1, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]])


def test_logprobs_do_not_depend_on_padding(untied: Path) -> None:
    model = load_policy(untied / "sft")
    with torch.no_grad():
        padded, alone = token_logprobs(model, IDS, MASK)[1, :4], token_logprobs(model, IDS[1:, :5], MASK[1:, :5])[0]

    assert torch.allclose(padded, alone, atol=1e-5)


def test_reward_scores_do_not_depend_on_padding(untied: Path) -> None:
    model = load_reward_model(untied / "reward")
    with torch.no_grad():
        padded, alone = reward_scores(model, IDS, MASK)[1], reward_scores(model, IDS[1:, :5], MASK[1:, :5])[0]

    assert padded.item() == pytest.approx(alone.item(), abs=1e-5)


def test_the_last_token_is_found_by_the_mask_not_by_its_id(untied: Path) -> None:
    model = load_reward_model(untied / "reward")
    ends_in_pad = torch.tensor([[2, 60, 3, 0]])
    with torch.no_grad():
        with_it = reward_scores(model, ends_in_pad, torch.tensor([[1, 1, 1, 1]]))
        without = reward_scores(model, ends_in_pad, torch.tensor([[1, 1, 1, 0]]))

    assert abs(with_it.item() - without.item()) > 1e-4


def test_the_score_offset_is_subtracted(untied: Path) -> None:
    model = load_reward_model(untied / "reward")
    with torch.no_grad():
        shifted = reward_scores(model, IDS, MASK)
        model.config.score_offset = 0.0
        raw = reward_scores(model, IDS, MASK)

    assert torch.allclose(raw - shifted, torch.full((2,), 0.25))


@pytest.mark.parametrize("models", ["untied", "tied"])
def test_the_value_network_starts_as_the_reward_model(models: str, request: pytest.FixtureRequest) -> None:
    directory: Path = request.getfixturevalue(models)
    value, reward = value_model_from_reward(directory / "reward"), load_reward_model(directory / "reward")
    with torch.no_grad():
        values, scores = token_values(value, IDS, MASK), reward_scores(reward, IDS, MASK)

    assert values.shape == (2, 7)
    assert values[0, 6].item() == pytest.approx(scores[0].item(), abs=1e-5)
    assert values[1, 4].item() == pytest.approx(scores[1].item(), abs=1e-5)


def test_a_policy_is_not_taken_for_a_reward_model_with_more_outputs(untied: Path, tmp_path: Path) -> None:
    reward = load_reward_model(untied / "reward")
    reward.config.num_labels = 3
    save_model(reward, untied / "tokenizer", tmp_path / "three")

    with pytest.raises((ConfigError, RuntimeError)):
        load_reward_model(tmp_path / "three")


def test_saving_leaves_nothing_but_the_directory(untied: Path, tmp_path: Path) -> None:
    save_model(load_policy(untied / "sft"), untied / "tokenizer", tmp_path / "policy")
    save_model(load_policy(untied / "sft"), untied / "tokenizer", tmp_path / "policy")

    assert [entry.name for entry in tmp_path.iterdir()] == ["policy"]
    assert (tmp_path / "policy" / "chat_template.jinja").exists()


def test_tied_and_untied_models_are_what_they_say(untied: Path, tied: Path) -> None:
    for directory, is_tied in ((untied, False), (tied, True)):
        model = load_policy(directory / "sft")
        same = model.get_input_embeddings().weight is model.get_output_embeddings().weight
        assert same == is_tied
        assert not model.training


def test_a_version_names_the_content(untied: Path, tied: Path, tmp_path: Path) -> None:
    save_model(load_reward_model(untied / "reward"), untied / "tokenizer", tmp_path / "copy")

    assert len(model_version(untied / "reward")) == 12
    assert model_version(untied / "reward") == model_version(tmp_path / "copy")
    assert model_version(untied / "reward") != model_version(tied / "reward")
