"""`train sft`: which epoch is kept, what is written, and what is refused before any work is done."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from transformers import AutoModelForCausalLM, AutoTokenizer

from onlinerlhf.cli import cli
from onlinerlhf.core.errors import ConfigError
from onlinerlhf.learner.training import sft
from onlinerlhf.learner.training.data import Example
from onlinerlhf.learner.training.progress import Silence
from onlinerlhf.learner.training.responses import ResponseScorer, some_prompts
from onlinerlhf.learner.training.selection import chosen_epoch
from onlinerlhf.learner.training.sft import SFTInputs, train_sft
from onlinerlhf.learner.training.sft_config import SFTConfig
from onlinerlhf.models.policy import load_policy
from onlinerlhf.models.scalar import load_reward_model
from onlinerlhf.models.tokenizer import PromptTokenizer
from unit.training.conftest import Writer

ROWS = [
    {"prompt": f"say {word} {number}", "completion": f"{word} and {word}", "user": f"user {number % 5}"}
    for number, word in enumerate(["fox", "owl", "bee", "cow"] * 5)
]
QUICK = SFTConfig(
    epochs=3, batch_size=8, learning_rate=3e-3, max_response_tokens=12, validation_share=0.2, device="cpu"
)


class Said(Silence):
    """Remembers what it was told, and may kill the training."""

    def __init__(self, *, kill_after: int = -1) -> None:
        self.lines: list[str] = []
        self._left = kill_after

    def say(self, message: str) -> None:
        self.lines.append(message)

    def advance(self, *, detail: str = "", steps: int = 1) -> None:
        self._left -= steps
        if self._left == 0:
            raise InterruptedError


def report(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "report.json").read_text()))


@pytest.fixture
def inputs(models: Path, write: Writer, tmp_path: Path) -> SFTInputs:
    return SFTInputs(model=models / "base", data=(write(*ROWS),), out=tmp_path / "out")


def test_the_result_is_a_model_directory_that_transformers_loads(inputs: SFTInputs) -> None:
    said = Said()
    train_sft(inputs, QUICK, said)

    model = AutoModelForCausalLM.from_pretrained(inputs.out)
    assert AutoTokenizer.from_pretrained(inputs.out).eos_token_id == model.config.eos_token_id
    for name in ("report.json", "steps.jsonl", "tensorboard", "epochs.png", "run.json"):
        assert (inputs.out / name).exists()
    assert not (inputs.out / "checkpoints").exists()
    assert any("without --reward" in line and "validation loss" in line for line in said.lines)


def test_the_report_has_every_epoch(inputs: SFTInputs) -> None:
    train_sft(inputs, QUICK, Silence())

    found = report(inputs.out)
    assert [epoch["epoch"] for epoch in found["epochs"]] == [1, 2, 3]
    assert set(found["epochs"][0]) == {"epoch", "train_loss", "validation_loss", "chosen"}
    assert [epoch["chosen"] for epoch in found["epochs"]].count(True) == 1
    assert found["demonstrations"] + found["validation"] == len(ROWS)
    assert "lowest validation loss" in found["chosen_by"]
    losses = [epoch["validation_loss"] for epoch in found["epochs"]]
    assert found["chosen_epoch"] == 1 + losses.index(min(losses))


def test_the_epoch_that_the_reward_model_likes_best_is_kept(
    inputs: SFTInputs, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, seen = iter([0.1, 0.7, 0.3]), []

    def score(self: ResponseScorer, policy: torch.nn.Module) -> float:
        seen.append({name: tensor.clone() for name, tensor in policy.state_dict().items()})
        return next(scores)

    monkeypatch.setattr(ResponseScorer, "score", score)
    scored = SFTInputs(model=inputs.model, data=inputs.data, out=inputs.out, reward=models / "reward")
    train_sft(scored, QUICK, Silence())

    found = report(inputs.out)
    assert found["chosen_epoch"] == 2
    assert [epoch["reward_score"] for epoch in found["epochs"]] == [0.1, 0.7, 0.3]
    kept = load_policy(inputs.out).state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in seen[1].items())
    assert not all(torch.equal(kept[name], tensor) for name, tensor in seen[2].items())


def test_a_killed_training_goes_on_to_the_same_model_and_report(
    inputs: SFTInputs, models: Path, tmp_path: Path
) -> None:
    scored = SFTInputs(model=inputs.model, data=inputs.data, out=tmp_path / "whole", reward=models / "reward")
    train_sft(scored, QUICK, Silence())
    killed = SFTInputs(model=inputs.model, data=inputs.data, out=tmp_path / "killed", reward=models / "reward")
    with pytest.raises(InterruptedError):
        train_sft(killed, QUICK, Said(kill_after=5))
    assert not (killed.out / "config.json").exists()

    train_sft(killed, QUICK, Silence())

    weights = [(directory / "model.safetensors").read_bytes() for directory in (scored.out, killed.out)]
    assert weights[0] == weights[1]
    reports = [
        {key: value for key, value in report(out).items() if key != "seconds"} for out in (scored.out, killed.out)
    ]
    assert reports[0] == reports[1]


def test_a_finished_training_is_not_repeated_and_another_one_is_refused(inputs: SFTInputs) -> None:
    train_sft(inputs, QUICK, Silence())
    before = (inputs.out / "model.safetensors").stat().st_mtime_ns

    said = Said()
    train_sft(inputs, QUICK.replaced(checkpoint_every=7), said)

    assert said.lines == [f"{inputs.out} is complete; its report is {inputs.out / 'report.json'}"]
    assert (inputs.out / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="another training \\(epochs 3, not 4\\)"):
        train_sft(inputs, QUICK.replaced(epochs=4), said)


def test_other_data_is_another_training(inputs: SFTInputs) -> None:
    train_sft(inputs, QUICK, Silence())
    inputs.data[0].write_text("".join(json.dumps(row) + "\n" for row in reversed(ROWS)))

    with pytest.raises(ConfigError, match="--data has other content"):
        train_sft(inputs, QUICK, Silence())


def test_a_directory_with_something_else_in_it_is_left_alone(inputs: SFTInputs) -> None:
    inputs.out.mkdir()
    (inputs.out / "config.json").write_text("{}")

    with pytest.raises(ConfigError, match="holds something else"):
        train_sft(inputs, QUICK, Silence())


def test_the_same_prompts_are_answered_with_the_same_draws_each_time(models: Path, tokenizer: PromptTokenizer) -> None:
    policy = load_policy(models / "sft")
    scorer = ResponseScorer(
        reward_model=load_reward_model(models / "reward"),
        tokenizer=tokenizer,
        prompts=[tokenizer.encode_prompt(f"say {word}") for word in ("fox", "owl", "bee")],
        max_response_tokens=6,
        sampled_together=2,
        micro_batch_tokens=40,
        seed=3,
    )

    assert scorer.score(policy) == scorer.score(policy)


def test_validation_prompts_are_different_ones(tokenizer: PromptTokenizer) -> None:
    examples = [Example(prompt=[number % 7, 1], response=[1]) for number in range(50)]

    assert len(some_prompts(examples, 100, seed=0)) == 7
    assert len(some_prompts(examples, 3, seed=0)) == 3
    assert some_prompts(examples, 3, seed=0) == some_prompts(random.Random(0).sample(examples, 50), 3, seed=0)


def test_no_user_is_on_both_sides_of_the_split(models: Path, inputs: SFTInputs, tokenizer: PromptTokenizer) -> None:
    train, validation = sft._examples(inputs, QUICK, tokenizer, Silence())

    assert {example.user for example in train} | {example.user for example in validation} == {
        f"user {number}" for number in range(5)
    }
    assert {example.user for example in train} & {example.user for example in validation} == set()


def test_a_validation_file_with_the_same_users_is_remarked_on(
    models: Path, inputs: SFTInputs, tokenizer: PromptTokenizer, write: Writer
) -> None:
    said = Said()
    other = SFTInputs(
        model=inputs.model, data=inputs.data, out=inputs.out, validation=write(*ROWS[:2], name="other.jsonl")
    )

    train, validation = sft._examples(other, QUICK, tokenizer, said)

    assert (len(train), len(validation)) == (20, 2)
    assert said.lines == ["2 users are in training and validation data: validation will look too good"]


def test_the_first_of_equal_epochs_is_chosen() -> None:
    assert chosen_epoch([{"validation_loss": 2.0}, {"validation_loss": 1.0}, {"validation_loss": 1.0}]) == 2
    by_score = [{"validation_loss": 1.0, "reward_score": 0.1}, {"validation_loss": 3.0, "reward_score": 0.2}]
    assert chosen_epoch(by_score) == 2


def test_an_epoch_without_a_number_is_never_chosen() -> None:
    assert chosen_epoch([{"validation_loss": float("nan")}, {"validation_loss": 1.0}]) == 2


def test_a_reward_model_of_another_vocabulary_is_refused_before_any_work(
    inputs: SFTInputs, models: Path, tmp_path: Path
) -> None:
    other = tmp_path / "reward"
    shutil.copytree(models / "reward", other)
    described = json.loads((other / "tokenizer.json").read_text())
    vocabulary = described["model"]["vocab"]
    a, b = list(vocabulary)[-2:]
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
    (other / "tokenizer.json").write_text(json.dumps(described))

    with pytest.raises(ConfigError, match=r"differs from that of .* in 4 entries"):
        train_sft(SFTInputs(model=inputs.model, data=inputs.data, out=inputs.out, reward=other), QUICK, Silence())
    assert not inputs.out.exists()


def _with_config(models: Path, path: Path, **changes: Any) -> Path:
    shutil.copytree(models / "base", path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **changes}))
    return path


def test_a_tokenizer_with_another_end_token_is_refused(inputs: SFTInputs, models: Path, tmp_path: Path) -> None:
    model = _with_config(models, tmp_path / "model", eos_token_id=7)

    with pytest.raises(ConfigError, match="end token is 1, the model's config says 7"):
        train_sft(SFTInputs(model=model, data=inputs.data, out=inputs.out), QUICK, Silence())


def test_a_tokenizer_larger_than_the_embedding_is_refused(
    inputs: SFTInputs, models: Path, tmp_path: Path, tokenizer: PromptTokenizer
) -> None:
    model = tmp_path / "model"
    shutil.copytree(models / "base", model)
    described = json.loads((model / "tokenizer.json").read_text())
    added = {"id": 320, "content": "<|new|>", "special": True, **dict.fromkeys(
        ("single_word", "lstrip", "rstrip", "normalized"), False)}  # fmt: skip
    described["added_tokens"].append(added)
    (model / "tokenizer.json").write_text(json.dumps(described))

    with pytest.raises(ConfigError, match="the tokenizer has 321 tokens, the model's embedding 320"):
        train_sft(SFTInputs(model=model, data=inputs.data, out=inputs.out), QUICK, Silence())


def _command(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["train", "sft", *map(str, arguments)])


def test_the_command_trains(inputs: SFTInputs, tmp_path: Path) -> None:
    config = tmp_path / "sft.toml"
    config.write_text('epochs = 9\nbatch_size = 8\ndevice = "cpu"\nmax_response_tokens = 12\n')

    done = _command(
        "--model", inputs.model, "--data", inputs.data[0], "--out", inputs.out, "--config", config, "--set", "epochs=1"
    )

    assert done.exit_code == 0, done.output
    assert report(inputs.out)["config"]["epochs"] == 1
    assert "epoch 1 of 1 is kept" in done.output


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("epoch=3", "Error: epoch: unknown key; there are: adam_beta1,"),
        ("epochs=0", "Error: epochs: Input should be greater than or equal to 1 (--set)"),
        ("residual_dropout=1", "Error: residual_dropout: Input should be less than 1 (--set)"),
        ("epochs", "Error: --set takes key=value, got 'epochs'"),
        ("device=tpu", "Error: device: "),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(inputs: SFTInputs, setting: str, expected: str) -> None:
    done = _command("--model", inputs.model, "--data", inputs.data[0], "--out", inputs.out, "--set", setting)

    assert done.exit_code == 1
    assert done.output.startswith(expected)
    assert done.output.count("\n") == 1


def test_a_bad_row_is_one_line(inputs: SFTInputs, write: Writer) -> None:
    path = write({"prompt": "a"}, name="bad.jsonl")

    done = _command("--model", inputs.model, "--data", path, "--out", inputs.out)

    assert done.exit_code == 1
    assert done.output.startswith(f"Error: {path}, row 1, field completion: is missing")
    assert not inputs.out.exists()


def test_the_help_has_examples() -> None:
    assert "\n    onlinerlhf train sft --model base --data demonstrations.jsonl" in _command("--help").output
