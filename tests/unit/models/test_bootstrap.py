"""The bootstrap at its smallest scale."""

import io
import json
from pathlib import Path

import pytest
import torch

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.learner.bootstrap import bootstrap
from onlinerlhf.learner.bootstrap.muon import orthogonalised
from onlinerlhf.learner.sampling import sample
from onlinerlhf.learner.training.progress import reporter
from onlinerlhf.models.policy import load_policy
from onlinerlhf.models.scalar import load_reward_model
from onlinerlhf.models.tokenizer import PromptTokenizer
from onlinerlhf.models.version import model_version


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bootstrap")
    bootstrap(path, seed=1, scale="tiny")
    return path


def test_all_stages_leave_directories_that_load(made: Path) -> None:
    for name in ("base", "sft"):
        assert load_policy(made / name).config.vocab_size == PromptTokenizer.load(made / name).vocab_size
    assert load_reward_model(made / "reward").config.num_labels == 1


def test_the_report_says_what_each_stage_measured(made: Path) -> None:
    report = json.loads((made / "bootstrap.json").read_text())

    assert report["seed"] == 1
    assert set(report) >= {"tokenizer", "base", "sft", "reward"}
    assert 0 <= report["reward"]["pair_accuracy"] <= 1
    assert 0.4 < report["reward"]["pair_accuracy_ceiling"] <= 1
    assert 0.4 < report["reward"]["held_out_labelers_ceiling"] <= 1
    assert report["reward"]["held_out_labelers_ratio"] == pytest.approx(
        report["reward"]["held_out_labelers_accuracy"] / report["reward"]["held_out_labelers_ceiling"], abs=1e-3
    )
    assert report["base"]["seconds"] > 0


def test_a_finished_stage_is_not_repeated(made: Path) -> None:
    before = (made / "sft" / "model.safetensors").stat().st_mtime_ns

    bootstrap(made, seed=1, scale="tiny")

    assert (made / "sft" / "model.safetensors").stat().st_mtime_ns == before


def test_the_same_seed_makes_the_same_models(made: Path, tmp_path: Path) -> None:
    bootstrap(tmp_path, seed=1, scale="tiny")

    assert model_version(tmp_path / "reward") == model_version(made / "reward")


def test_a_directory_of_another_seed_is_refused(made: Path) -> None:
    with pytest.raises(ConfigError, match="another directory"):
        bootstrap(made, seed=2, scale="tiny")


def test_an_unknown_scale_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'huge'"):
        bootstrap(tmp_path, scale="huge")


def test_sampled_responses_end_with_the_end_token_or_at_the_limit(made: Path) -> None:
    tokenizer = PromptTokenizer.load(made / "sft")
    prompts = [tokenizer.encode_prompt("name two tools. use commas."), tokenizer.encode_prompt("hi")]
    generator = torch.Generator().manual_seed(0)

    responses = sample(load_policy(made / "sft"), tokenizer, prompts * 20, max_tokens=8, generator=generator)

    assert len(responses) == 40
    for response in responses:
        assert 1 <= len(response) <= 8
        assert tokenizer.eos_token_id not in response[:-1]
        assert len(response) == 8 or response[-1] == tokenizer.eos_token_id


def test_sampling_from_a_padded_batch_follows_the_models_distribution(made: Path) -> None:
    tokenizer, model = PromptTokenizer.load(made / "sft"), load_policy(made / "sft")
    short, long = tokenizer.encode_prompt("hi"), tokenizer.encode_prompt("name two tools. use commas. thank you.")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([short])).logits[0, -1].softmax(-1)

    responses = sample(model, tokenizer, [short] * 4_000 + [long], max_tokens=1, generator=generator)

    observed = torch.bincount(torch.tensor(responses[:4_000]).flatten(), minlength=len(expected)) / 4_000
    assert float((observed - expected).abs().max()) < 0.02


def test_progress_outside_a_terminal_is_a_line_at_the_end_of_a_stage() -> None:
    stream = io.StringIO()
    with reporter(stream) as told:
        stage = told.start("pretraining", 3)
        for _ in range(3):
            stage.advance(detail="loss 1.0")

    assert stream.getvalue() == "pretraining: 3/3 loss 1.0 (0 s left)\n"


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((2, 16, 48), (2, 48, 16)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
        assert values.min() > 0.6
        assert values.max() < 1.3
