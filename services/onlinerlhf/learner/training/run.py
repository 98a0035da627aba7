"""The output directory of one training: who it belongs to, checkpoints, logs, and in the end a model.

`run.json` says which training it is, `checkpoints/` lets it go on, `report.json`, written last, says it is complete.
The model's files lie beside them, so the directory is a plain transformers directory.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.learner.checkpoints import Checkpoints, Saved
from onlinerlhf.learner.files import sync_directory, sync_file, write_text
from onlinerlhf.learner.step_log import StepLog
from onlinerlhf.learner.training.config import Settings
from onlinerlhf.learner.training.tracker import Tracker
from onlinerlhf.models.policy import save_model
from onlinerlhf.models.version import model_version

_RUN, _REPORT, _CHECKPOINTS = "run.json", "report.json", "checkpoints"
Inputs = Mapping[str, Path | Sequence[Path] | None]


@dataclass(slots=True)
class RunDirectory:
    """An open output directory."""

    out: Path
    checkpoints: Checkpoints
    tracker: Tracker
    steps: StepLog
    saved: Saved | None
    """Where the training goes on; None: from the start."""

    @property
    def is_complete(self) -> bool:
        """Whether the training has come to its end."""
        return self.report_path.exists()

    @property
    def report_path(self) -> Path:
        """Everything that the training measured."""
        return self.out / _REPORT

    @property
    def best(self) -> Path:
        """Where a stage keeps the best model so far."""
        return self.checkpoints.directory / "best"

    def publish(self, model: PreTrainedModel, tokenizer_dir: Path) -> None:
        """Make the directory a model directory."""
        whole = self.checkpoints.directory / "publish"
        save_model(model, tokenizer_dir, whole)
        self.publish_saved(whole)

    def publish_saved(self, directory: Path) -> None:
        """As `publish`, with the files of a complete model directory."""
        # The config comes last: without it nothing loads.
        for source in sorted(directory.iterdir(), key=lambda path: path.name == "config.json"):
            staging = self.out / f".{source.name}"
            shutil.copyfile(source, staging)
            sync_file(staging)
            staging.replace(self.out / source.name)
        sync_directory(self.out)

    def finish(self, report: Mapping[str, Any]) -> None:
        """The training is complete: write the report, drop the checkpoints."""
        _write_json(report, self.report_path)
        shutil.rmtree(self.checkpoints.directory, ignore_errors=True)


@contextmanager
def open_run(out: Path, *, command: str, config: Settings, inputs: Inputs) -> Iterator[RunDirectory]:
    """Begin a training in `out`, or go on with the one of the same command, settings and inputs.

    ConfigError where something else lies there. Inputs are compared by content, so they may move.
    """
    identity = {
        "command": command,
        **{f"config.{key}": value for key, value in config.identity().items()},
        **{f"--{name}": _digest(paths) for name, paths in inputs.items()},
    }
    with _sole_owner(out):
        _claim(out, identity)
        yield from _opened(out, config)


def _opened(out: Path, config: Settings) -> Iterator[RunDirectory]:
    checkpoints = Checkpoints(out / _CHECKPOINTS, keep=config.keep_checkpoints)
    saved = checkpoints.newest()
    step = int(saved.state["step"]) if saved else 0
    steps = StepLog(out / "steps.jsonl")
    if not (out / _REPORT).exists():
        steps.truncate(step)
    with Tracker(out, config=config.model_dump(mode="json"), first_step=step) as tracker:
        yield RunDirectory(out, checkpoints, tracker, steps, saved)


@contextmanager
def _sole_owner(out: Path) -> Iterator[None]:
    """One training an output directory. The lock goes with the process, however that ends."""
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / _RUN).exists())):
        raise ConfigError(f"{out} holds something else than a training; choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"cannot use {out}: {error.strerror}; choose another --out") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"another training works in {out}: wait for it, or choose another --out") from None
    else:
        yield
    finally:
        os.close(descriptor)


def _claim(out: Path, identity: Mapping[str, Any]) -> None:
    path = out / _RUN
    has_begun = (out / _REPORT).exists() or any((out / _CHECKPOINTS).glob("*"))
    if not (path.exists() and has_begun):
        _write_json(identity, path)
        return
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path} ({type(error).__name__}); choose another --out") from error
    differing = [key for key in {**found, **identity} if found.get(key) != identity.get(key)]
    if differing:
        shown = ", ".join(_difference(key, found.get(key), identity.get(key)) for key in differing[:4])
        raise ConfigError(f"{out} holds another training ({shown}); run it as it was begun, or choose another --out")


def _difference(key: str, found: object, wanted: object) -> str:
    if key.startswith("--"):
        return f"{key} has other content"
    return f"{key.removeprefix('config.')} {found}, not {wanted}"


def _digest(paths: Path | Sequence[Path] | None) -> str | None:
    if paths is None:
        return None
    digests = [_content(path) for path in ([paths] if isinstance(paths, Path) else paths)]
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()[:12]


def _content(path: Path) -> str:
    """Of a model directory, its weights and its tokenizer count."""
    try:
        if path.is_dir():
            tokenizer = path / "tokenizer.json"
            return model_version(path) + (f"+{_sha256(tokenizer)}" if tokenizer.exists() else "")
        return _sha256(path)
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename or path}: {error.strerror}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:12]


def _write_json(value: Mapping[str, Any], path: Path) -> None:
    staging = path.with_name(f".{path.name}")
    write_text(json.dumps(value, indent=2) + "\n", staging)
    os.replace(staging, path)
    sync_directory(path.parent)
