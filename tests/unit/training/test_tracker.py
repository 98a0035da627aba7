"""Tracking: TensorBoard always, Weights & Biases when configured, and never the end of a training."""

import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.learner.training.tracker import Tracker


class FakeRun:
    """A Weights & Biases run that remembers."""

    def __init__(self, *, fails: bool = False) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.is_finished = False
        self._fails = fails

    def log(self, numbers: dict[str, float], *, step: int) -> None:
        if self._fails:
            raise ConnectionError("away")
        self.logged.append((step, numbers))

    def finish(self) -> None:
        self.is_finished = True


def board(directory: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(directory / "tensorboard")).Reload()
    return {name: [(each.step, each.value) for each in events.Scalars(name)] for name in events.Tags()["scalars"]}


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Weights & Biases is installed; the list holds what its runs were started with."""
    started: list[dict[str, Any]] = []

    def init(**arguments: Any) -> FakeRun:
        started.append(arguments)
        run: FakeRun = arguments["config"]["run"]
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    return started


def test_numbers_go_to_tensorboard_by_step(tmp_path: Path) -> None:
    with Tracker(tmp_path, config={}) as tracker:
        tracker.log(1, {"train/loss": 2.0, "train/broken": float("nan")})
        tracker.log(2, {"train/loss": 1.5})

    assert board(tmp_path) == {"train/loss": [(1, 2.0), (2, 1.5)]}


def test_a_training_that_goes_on_replaces_what_was_logged_after_its_checkpoint(tmp_path: Path) -> None:
    with Tracker(tmp_path, config={}) as tracker:
        for step in (1, 2, 3):
            tracker.log(step, {"loss": 9.0})
    with Tracker(tmp_path, config={}, first_step=1) as tracker:
        tracker.log(2, {"loss": 1.0})

    assert board(tmp_path) == {"loss": [(1, 9.0), (2, 1.0)]}


def test_weights_and_biases_gets_the_same_numbers_and_one_run_for_all_processes(
    tmp_path: Path, configured: list[dict[str, Any]]
) -> None:
    run = FakeRun()
    for step in (1, 2):
        with Tracker(tmp_path, config={"wandb_project": "mine", "run": run}) as tracker:
            tracker.log(step, {"loss": 2.0})

    assert run.logged == [(1, {"loss": 2.0}), (2, {"loss": 2.0})]
    assert run.is_finished
    assert configured[0]["project"] == "mine"
    assert configured[0]["id"] == configured[1]["id"]


def test_the_project_may_come_from_the_environment(
    tmp_path: Path, configured: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    Tracker(tmp_path, config={"run": FakeRun()}).close()

    assert configured[0]["project"] == "theirs"


def test_without_configuration_it_is_not_even_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", None)

    Tracker(tmp_path, config={}).close()


def test_configured_but_not_installed_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)

    with pytest.raises(ConfigError, match=r"pip install 'onlinerlhf\[wandb\]'"):
        Tracker(tmp_path, config={"wandb_project": "mine"})


def test_a_project_that_cannot_be_opened_is_an_error_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise PermissionError("no key")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refuse))
    with pytest.raises(ConfigError, match=r"cannot start \(PermissionError\): log in with `wandb login`"):
        Tracker(tmp_path, config={"wandb_project": "mine"})


@pytest.mark.usefixtures("configured")
def test_a_tracker_that_fails_later_is_logged_once_and_loses_no_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Tracker(tmp_path, config={"wandb_project": "mine", "run": FakeRun(fails=True)}) as tracker:
        monkeypatch.setattr(tracker._board, "flush", FakeRun(fails=True).log)
        with caplog.at_level(logging.WARNING):
            tracker.log(1, {"loss": 2.0})
            tracker.log(2, {"loss": 1.0})

    failed = [(record.message, record.__dict__["service"]) for record in caplog.records]
    assert failed == [("tracking failed", "TensorBoard"), ("tracking failed", "Weights & Biases")]
    assert board(tmp_path) == {"loss": [(1, 2.0), (2, 1.0)]}
