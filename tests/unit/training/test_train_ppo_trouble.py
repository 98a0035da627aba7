"""`onlinerlhf train ppo` stops and goes on, and refuses what cannot work."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from onlinerlhf.core.errors import CheckpointError, ConfigError, DataError, NonFiniteLoss
from onlinerlhf.learner.checkpoints import Checkpoints
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.training import episodes
from onlinerlhf.learner.training.config import load_training_config
from onlinerlhf.learner.training.ppo import train_ppo
from onlinerlhf.learner.training.ppo_train_config import PPOTrainConfig
from onlinerlhf.learner.training.scoring import sequence_scores
from unit.training.offline_ppo import Said, StoppedHereError, assert_identical, make_config, make_models, stop_at

Config = Callable[..., PPOTrainConfig]


@pytest.fixture(scope="module")
def random_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a reward model that likes one token."""
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def config(random_models: Path, tmp_path: Path) -> Config:
    """Of a small training in tmp_path / "out"."""
    return partial(make_config, random_models, tmp_path)


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_training_that_stopped_anywhere_ends_with_the_very_same_weights(
    config: Config, tmp_path: Path, step: int
) -> None:
    whole = train_ppo(config(output_dir=tmp_path / "whole"))
    with pytest.raises(StoppedHereError):
        train_ppo(config(), on_step=stop_at(step))
    resumed = train_ppo(config())
    assert_identical(whole.out, resumed.out)
    assert [line["score_mean"] for line in resumed.history] == [line["score_mean"] for line in whole.history]


def test_ctrl_c_saves_after_the_step_at_hand_and_the_training_goes_on_from_there(
    config: Config, tmp_path: Path
) -> None:
    whole = train_ppo(config(output_dir=tmp_path / "whole"))
    said = Said()

    def on_step(ppo: PPO, numbers: Mapping[str, float]) -> None:
        if numbers["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_ppo(config(checkpoint_every=100), on_step=on_step, progress=said)
    newest = tmp_path / "out" / "checkpoints" / "step-00000003"
    assert newest.is_dir()
    assert f"stopped after step 3 of 4; the last good checkpoint is {newest}, from where the same" in said.text
    assert_identical(whole.out, train_ppo(config(checkpoint_every=100)).out)


def test_a_checkpoint_cut_short_is_set_aside_and_the_one_before_it_used(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train_ppo(config(output_dir=tmp_path / "whole", checkpoint_every=1))
    with pytest.raises(StoppedHereError):
        train_ppo(config(checkpoint_every=1), on_step=stop_at(4))
    newest = tmp_path / "out" / "checkpoints" / "step-00000003"
    os.truncate(newest / "policy.safetensors", 1000)
    said = Said()
    assert_identical(whole.out, train_ppo(config(checkpoint_every=1), progress=said).out)
    assert "broken checkpoint set aside" in caplog.text
    assert "goes on from" in said.text and "step-00000002" in said.text


def test_a_full_disk_ends_the_training_and_names_the_checkpoint_that_is_left(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    save = Checkpoints.save

    def full(self: Checkpoints, step: int, *parts: Any) -> Path:
        if step == 4:
            raise CheckpointError("cannot write checkpoint step-00000004: No space left on device")
        return save(self, step, *parts)

    monkeypatch.setattr(Checkpoints, "save", full)
    with pytest.raises(CheckpointError, match=r"No space left on device; the last good checkpoint is .*step-00000002"):
        train_ppo(config())


def broken_scores(monkeypatch: pytest.MonkeyPatch, calls: set[int]) -> None:
    """Makes the reward model's scores NaN at these calls, from 1."""
    count = 0

    def broken(*arguments: Any, **others: Any) -> torch.Tensor:
        nonlocal count
        count += 1
        return sequence_scores(*arguments, **others) * (float("nan") if count in calls else 1)

    monkeypatch.setattr(episodes, "sequence_scores", broken)


def test_a_step_that_is_not_finite_is_skipped_and_counted(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_scores(monkeypatch, {2, 3, 5})
    trained = train_ppo(config(max_steps=6))
    assert [line.get("skipped", 0) for line in trained.history] == [0, 1, 1, 0, 1, 0]
    assert (trained.num_steps, trained.num_skipped) == (6, 3)


def test_three_in_a_row_stop_the_training_which_names_the_last_good_checkpoint(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_scores(monkeypatch, {3, 4, 5})
    with pytest.raises(NonFiniteLoss) as stopped:
        train_ppo(config(max_steps=9, checkpoint_every=2))
    message = str(stopped.value)
    assert "3 steps in a row" in message and "the reward model's scores" in message
    assert "step-00000004" in message and "learning_rate" in message and "steps.jsonl" in message


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"advantage_estimator": "rloo", "num_responses": 1}, "rloo compares responses to one prompt"),
        ({"batch_size": 5, "num_responses": 2}, "batch_size 5 is not a multiple of num_responses 2"),
        ({"clip_rang": 0.1}, "clip_rang"),
        ({"prompts": []}, "prompts"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(config: Config, settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        config(**settings)


def test_a_setting_of_the_command_line_is_checked_by_name() -> None:
    places = ["policy_dir=a", "reward_dir=b", "output_dir=c", 'prompts=["d"]']
    with pytest.raises(ConfigError, match="kl_coef"):
        load_training_config(PPOTrainConfig, path=None, settings=[*places, "kl_coef=-1"])
    assert load_training_config(PPOTrainConfig, path=None, settings=[*places, "ema_decay=none"]).ema_decay is None


def test_an_output_directory_of_another_training_is_refused(config: Config) -> None:
    with pytest.raises(StoppedHereError):
        train_ppo(config(checkpoint_every=1), on_step=stop_at(2))
    with pytest.raises(ConfigError, match=r"holds another training \(clip_range 0.2, not 0.3\)"):
        train_ppo(config(clip_range=0.3))


def test_an_output_directory_of_a_training_that_saved_nothing_yet_may_be_begun_anew(config: Config) -> None:
    with pytest.raises(StoppedHereError):
        train_ppo(config(checkpoint_every=50), on_step=stop_at(1))
    assert train_ppo(config(clip_range=0.3, max_steps=1)).num_steps == 1


def test_two_trainings_in_one_output_directory_are_refused(config: Config) -> None:
    def another(_: PPO, numbers: Mapping[str, float]) -> None:
        if numbers["step"] == 1:
            with pytest.raises(ConfigError, match="another training works in"):
                train_ppo(config())

    train_ppo(config(max_steps=2), on_step=another)


def test_a_response_that_cannot_fit_the_models_positions_is_refused(config: Config) -> None:
    with pytest.raises(ConfigError, match=r"takes 512 together: set max_response_tokens to \d+ or less"):
        train_ppo(config(max_response_tokens=512))
    assert not config().output_dir.exists()


def test_several_processes_are_refused(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="without torchrun"):
        train_ppo(config())


@pytest.mark.parametrize(("content", "problem"), [("", "prompts.jsonl"), ('{"prompt": 3}\n', "row 1")])
def test_a_prompt_file_that_cannot_be_used_is_refused(
    config: Config, tmp_path: Path, content: str, problem: str
) -> None:
    (tmp_path / "prompts.jsonl").write_text(content)
    with pytest.raises(DataError, match=problem):
        train_ppo(config())
    assert not (tmp_path / "out").exists()


def test_a_reward_model_of_another_vocabulary_is_refused(config: Config, random_models: Path, tmp_path: Path) -> None:
    shutil.copytree(random_models / "reward", tmp_path / "reward")
    tokenizer = (tmp_path / "reward" / "tokenizer.json").read_text()
    described = json.loads(tokenizer)
    vocabulary = described["model"]["vocab"]
    a, b = list(vocabulary)[10:12]
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
    (tmp_path / "reward" / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(ConfigError, match=r"the vocabulary of .*reward"):
        train_ppo(config(reward_dir=tmp_path / "reward"))


def test_a_tokenizer_of_another_model_is_refused(config: Config, random_models: Path, tmp_path: Path) -> None:
    shutil.copytree(random_models / "sft", tmp_path / "sft")
    described = json.loads((tmp_path / "sft" / "config.json").read_text())
    (tmp_path / "sft" / "config.json").write_text(json.dumps({**described, "eos_token_id": 7}))
    with pytest.raises(ConfigError, match="end token"):
        train_ppo(config(policy_dir=tmp_path / "sft"))


def test_trained_ppo_says_where_it_is(config: Config, tmp_path: Path) -> None:
    said = Said()
    trained = train_ppo(config(max_steps=1), progress=said)
    assert trained.out == tmp_path / "out"
    assert f"the policy is in {tmp_path / 'out'}" in said.text
