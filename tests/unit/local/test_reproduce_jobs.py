"""The jobs of one seed, on tiny models: they leave their numbers, are not repeated, and end in a report."""

import re
from pathlib import Path

import pytest

from onlinerlhf.core.errors import ConfigError, OnlineRLHFError
from onlinerlhf.learner.training.progress import Silence
from onlinerlhf.local.reproduce import command
from onlinerlhf.local.reproduce.jobs import run_job
from onlinerlhf.local.reproduce.layout import JOBS, MODELS, PPO, PTX, SFT, STAGES, SeedDirectory
from onlinerlhf.local.reproduce.results import load_result
from onlinerlhf.local.reproduce.settings import FAST


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> SeedDirectory:
    """A seed whose jobs are all done."""
    directory = SeedDirectory(root=tmp_path_factory.mktemp("reproduce"), settings=FAST, seed=1)
    for job in JOBS:
        run_job(directory, job, progress=Silence())
    return directory


def test_every_stage_is_measured_on_the_same_prompts(directory: SeedDirectory) -> None:
    result = load_result(directory)

    assert set(result.stages) == set(STAGES)
    assert {len(found.answers.texts) for found in result.stages.values()} == {FAST.num_held_out}
    assert all(0.0 <= score <= 1.0 for found in result.stages.values() for score in found.answers.gold_scores)
    assert all(found.lm_loss > 1.0 for found in result.stages.values())
    assert result.stages[SFT].answers.kl_nats == pytest.approx(0.0, abs=1e-4)
    assert len(result.prompted["scores"]) == 13


def test_training_is_watched_from_the_sft_policy_on(directory: SeedDirectory) -> None:
    result = load_result(directory)

    for run in (PPO, PTX):
        assert [point["step"] for point in result.curves[run]] == [0, 1, 2]
        assert result.num_steps[run] == 2
    assert "ptx_nll" in result.curves[PTX][1]
    assert "ptx_nll" not in result.curves[PPO][1]


def test_a_job_that_is_done_is_not_repeated(directory: SeedDirectory) -> None:
    written = (directory.path / "measured-models.json").stat().st_mtime_ns

    run_job(directory, MODELS, progress=Silence())

    assert (directory.path / "measured-models.json").stat().st_mtime_ns == written


def test_the_command_goes_on_from_what_is_done_and_writes_the_report(
    directory: SeedDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "reproduce-fast").symlink_to(directory.root)

    command.reproduce(tmp_path, seeds=(1,), out=tmp_path / "docs", fast=True)

    printed = capsys.readouterr().out
    assert len(re.findall(r"^(?:holds|FAILS): ", printed, flags=re.MULTILINE)) == 6
    assert "FAILS: PPO beats SFT" in printed
    assert (tmp_path / "docs" / "reproduction.md").read_text().startswith("# InstructGPT in miniature")


def test_a_failing_job_is_named_with_what_it_said(tmp_path: Path) -> None:
    broken = tmp_path / "reproduce-fast" / "seed-1"
    broken.mkdir(parents=True)
    (broken / "models").write_text("in the way")

    with pytest.raises(OnlineRLHFError, match=r"seed 1 models failed \(1\): "):
        command.reproduce(tmp_path, seeds=(1,), out=None, fast=True)


def test_a_directory_of_other_settings_is_refused_before_anything_runs(tmp_path: Path) -> None:
    other = tmp_path / "reproduce-fast" / "seed-1"
    other.mkdir(parents=True)
    (other / "settings.json").write_text('{"digest": "other"}')

    with pytest.raises(ConfigError, match="other settings"):
        command.reproduce(tmp_path, seeds=(1,), out=None, fast=True)
