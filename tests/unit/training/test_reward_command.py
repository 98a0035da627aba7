"""`train reward` from files to a model directory."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from onlinerlhf.core.errors import ConfigError, DataError
from onlinerlhf.learner.bootstrap import tiny_models
from onlinerlhf.learner.training import reward
from onlinerlhf.learner.training.data import Ranking, load_demonstrations
from onlinerlhf.learner.training.progress import Silence
from onlinerlhf.learner.training.reward import RewardInputs, train_reward
from onlinerlhf.learner.training.reward_config import RewardConfig
from onlinerlhf.learner.training.reward_model import train_on_rankings
from onlinerlhf.models.packed import pack, packed_scores
from onlinerlhf.models.scalar import load_reward_model
from onlinerlhf.models.tokenizer import PromptTokenizer

FAST = RewardConfig(batch_size=8, learning_rate=3e-3, device="cpu", held_out_share=0.2)
WORDS = ("red", "blue", "fox", "owl", "bread", "soup", "hammer", "saw")


class Said(Silence):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    tiny_models(path, tie_word_embeddings=False)
    return path


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prompt(draw: random.Random) -> str:
    return "name " + " ".join(draw.choice(WORDS) for _ in range(4))


def rankings(count: int = 60) -> list[dict[str, Any]]:
    """Fewer words are better."""
    draw = random.Random(0)
    rows = []
    for number in range(count):
        lengths = draw.sample(range(1, 7), 4)
        rows.append(
            {
                "prompt": prompt(draw),
                "responses": [" ".join(draw.choice(WORDS) for _ in range(length)) for length in lengths],
                "ranks": [sorted(lengths).index(length) for length in lengths],
                "labeler": ("ada", "bob", "eve")[number % 3],
            }
        )
    return rows


def demonstrations(count: int = 20) -> list[dict[str, Any]]:
    draw = random.Random(1)
    return [{"prompt": prompt(draw), "completion": draw.choice(WORDS)} for _ in range(count)]


def test_rankings_become_a_model_directory_with_a_report(models: Path, tmp_path: Path) -> None:
    inputs = RewardInputs(
        model=models / "sft",
        data=(write(tmp_path / "rankings.jsonl", rankings()),),
        demonstrations=write(tmp_path / "demonstrations.jsonl", demonstrations()),
        out=tmp_path / "out",
    )

    train_reward(inputs, FAST.replaced(held_out_labelers="eve"), Silence())

    report = json.loads((inputs.out / "report.json").read_text())
    assert set(report["by_labeler"]) == {"ada", "bob", "eve"}
    assert report["by_labeler"]["eve"]["is_trained_on"] is False
    assert report["new_labelers"]["rankings"] == 20
    assert report["new_prompts"]["rankings"] == 8
    assert report["rankings"] == 32
    assert report["by_labeler"]["ada"]["low"] <= report["by_labeler"]["ada"]["accuracy"]
    assert len(report["calibration"]["bins"]) == 10
    assert report["is_centred"] is True
    assert (inputs.out / "calibration.png").exists()
    assert any((inputs.out / "tensorboard").iterdir())
    assert AutoModelForSequenceClassification.from_pretrained(inputs.out).config.num_labels == 1
    model, tokenizer = load_reward_model(inputs.out), PromptTokenizer.load(inputs.out)
    examples = load_demonstrations(
        tmp_path / "demonstrations.jsonl", tokenizer, max_prompt_tokens=99, max_response_tokens=99
    )
    scores = packed_scores(model, pack([example.prompt + example.response for example in examples]))
    assert abs(float(scores.detach().mean())) < 1e-5


def test_held_out_labelers_are_in_no_batch(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[Ranking] = []

    def spy(model: Any, data: list[Ranking], *args: Any, **kwargs: Any) -> Any:
        trained.extend(data)
        return train_on_rankings(model, data, *args, **kwargs)

    monkeypatch.setattr(reward, "train_on_rankings", spy)
    data = write(tmp_path / "rankings.jsonl", rankings())

    train_reward(
        RewardInputs(model=models / "sft", data=(data,), out=tmp_path / "out"),
        FAST.replaced(held_out_labelers="eve, ada"),
        Silence(),
    )

    assert {ranking.labeler for ranking in trained} == {"bob"}


def test_chosen_and_rejected_train_too_and_uncentred_scores_are_announced(models: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = [
        {"prompt": prompt(draw), "chosen": draw.choice(WORDS), "rejected": "red red red blue " + draw.choice(WORDS)}
        for _ in range(100)
    ]
    said = Said()
    inputs = RewardInputs(model=models / "sft", data=(write(tmp_path / "pairs.jsonl", rows),), out=tmp_path / "out")

    train_reward(inputs, FAST, said)

    report = json.loads((inputs.out / "report.json").read_text())
    assert report["new_prompts"]["accuracy"] == 1.0
    assert report["new_labelers"] is None
    assert list(report["by_labeler"]) == ["unnamed"]
    assert report["is_centred"] is False
    assert any("not centred" in line for line in said.lines)


def test_ties_are_counted_and_partial_rankings_train(models: Path, tmp_path: Path) -> None:
    rows = rankings(24)
    rows[0]["ranks"] = [1, 1, 1, 1]
    rows[1]["ranks"] = [-1, 0, -1, 0]
    rows[2]["ranks"] = [-1, 0, 1, 1]
    inputs = RewardInputs(model=models / "sft", data=(write(tmp_path / "some.jsonl", rows),), out=tmp_path / "out")

    train_reward(inputs, FAST, Silence())

    report = json.loads((inputs.out / "report.json").read_text())
    assert report["rankings_without_preference"] == 2
    assert report["rankings"] + report["new_prompts"]["rankings"] == 22


def test_only_ties_are_an_error(models: Path, tmp_path: Path) -> None:
    rows = [{**row, "ranks": [0, 0, 0, 0]} for row in rankings(5)]

    with pytest.raises(DataError, match="none of the 5 rankings prefers"):
        train_reward(
            RewardInputs(model=models / "sft", data=(write(tmp_path / "ties.jsonl", rows),), out=tmp_path / "out"),
            FAST,
            Silence(),
        )
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_larger_than_the_model_is_an_error_before_any_work(models: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for file in (models / "sft").iterdir():
        (mixed / file.name).write_bytes(file.read_bytes())
    described = json.loads((mixed / "tokenizer.json").read_text())
    described["added_tokens"] += [
        {"id": 5_000 + place, "content": f"<|extra{place}|>", "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for place in range(3)
    ]  # fmt: skip
    (mixed / "tokenizer.json").write_text(json.dumps(described))

    with pytest.raises(ConfigError, match="the tokenizer has"):
        train_reward(
            RewardInputs(model=mixed, data=(write(tmp_path / "rankings.jsonl", rankings()),), out=tmp_path / "out"),
            FAST,
            Silence(),
        )
    assert not (tmp_path / "out").exists()


def test_training_that_was_cut_short_goes_on_and_ends_with_the_same_weights(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (write(tmp_path / "rankings.jsonl", rankings()),)
    config = FAST.replaced(checkpoint_every=2)
    whole = RewardInputs(model=models / "sft", data=data, out=tmp_path / "whole")
    train_reward(whole, config, Silence())
    cut = RewardInputs(model=models / "sft", data=data, out=tmp_path / "cut")

    class Kill(Silence):
        steps = 0

        def advance(self, *, detail: str = "", steps: int = 1) -> None:
            self.steps += steps
            if self.steps == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_reward(cut, config, Kill())
    train_reward(cut, config, Silence())

    first, second = (load_file(inputs.out / "model.safetensors") for inputs in (whole, cut))
    assert all(first[name].equal(second[name]) for name in first)
