"""Checkpoints: everything a learner needs to go on as if it had never stopped, and which samples it has learned from.

A checkpoint is a directory of safetensors and JSON that appears complete, by rename. `checksums.json`, written last,
proves it: a directory that does not match is set aside and the one before it is used.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from onlinerlhf.core.errors import CheckpointError, StartupError
from onlinerlhf.learner.files import sync_directory, write_tensors, write_text
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.ppo_state import gather, restore, scalars

_log = logging.getLogger(__name__)
_PREFIX, _STAGING, _BROKEN = "step-", ".tmp", ".broken"
_STATE, _CHECKSUMS = "state.json", "checksums.json"
_FORMAT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedSample:
    """A sample whose gradient a checkpoint contains."""

    entry_id: str
    """Of the stream entry that delivered it."""
    sample_id: str
    version: int
    """The first policy version that contains it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a learner has come."""

    step: int = 0
    version: int = 0
    samples: tuple[LearnedSample, ...] = ()
    """Of the steps since the checkpoint before: those that may not have been acked yet."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """Totals since the run's start, for display."""


class CheckpointStore:
    """The directory of checkpoints. Synchronous: call it off the event loop."""

    def __init__(self, directory: Path, *, keep: int = 2) -> None:
        self.directory = directory
        self._keep = keep

    def save(self, ppo: PPO, progress: Progress) -> None:
        """Write a checkpoint, then forget the oldest. Raises CheckpointError; what was there stays."""
        target = self.directory / f"{_PREFIX}{progress.step:08d}"
        staging = target.with_name(target.name + _STAGING)
        try:
            # It exists where an earlier try failed at the last sync: only that is left to be done.
            if not (target.exists() and self._is_good(target)):
                shutil.rmtree(staging, ignore_errors=True)
                staging.mkdir(parents=True)
                _write(staging, ppo, progress)
                sync_directory(staging)
                staging.rename(target)
            sync_directory(self.directory)
            for old in self._complete()[self._keep :]:
                shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise CheckpointError(f"cannot write {target.name}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def load(self, ppo: PPO) -> Progress | None:
        """Put the newest good checkpoint into the PPO; None: there is none. Broken ones are logged and set aside.

        Raises CheckpointError for one that cannot be read: that says nothing about what it holds.
        """
        try:
            for directory in self._complete():
                if self._is_good(directory):
                    return _read(directory, ppo)
        except OSError as error:
            raise CheckpointError(f"cannot read the checkpoints: {error}") from error
        return None

    def _complete(self) -> list[Path]:
        """Newest first."""
        try:
            names = [path.name for path in self.directory.iterdir()]  # glob would take no permission for no file.
        except FileNotFoundError:
            return []
        found = [name for name in names if name.startswith(_PREFIX) and not name.endswith((_STAGING, _BROKEN))]
        return [self.directory / name for name in sorted(found, reverse=True)]

    def _is_good(self, directory: Path) -> bool:
        """Whether a checkpoint is what was written; else it is set aside. OSError: it cannot be read."""
        damage = _damage(directory)
        if damage:
            # At most so many: those that had not been acked are delivered again.
            lost = {"max_acked_samples_lacking": _num_samples(directory)}
            _log.error("broken checkpoint set aside", extra={"checkpoint": directory.name, "error": damage, **lost})
            for earlier in self.directory.glob(f"*{_BROKEN}"):
                shutil.rmtree(earlier, ignore_errors=True)
            directory.rename(directory.with_name(directory.name + _BROKEN))
        return not damage


def _write(directory: Path, ppo: PPO, progress: Progress) -> None:
    for name, tensors in gather(ppo).items():
        write_tensors(tensors, directory / f"{name}.safetensors")
    state = {**asdict(progress), "format": _FORMAT, "ppo": scalars(ppo)}
    write_text(json.dumps(state), directory / _STATE)
    names = sorted(path.name for path in directory.iterdir())
    write_text(json.dumps({name: _checksum(directory / name) for name in names}), directory / _CHECKSUMS)


def _damage(directory: Path) -> str:
    """What is wrong with a checkpoint's content; empty: nothing. OSError, but for a missing file: it cannot be told."""
    try:
        checksums = json.loads((directory / _CHECKSUMS).read_text(encoding="utf-8"))
        for name, expected in dict(checksums).items():
            if _checksum(directory / name) != expected:
                return f"{name} does not match its checksum"
    except (FileNotFoundError, NotADirectoryError) as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, TypeError):
        return f"{_CHECKSUMS} cannot be decoded"
    return ""


def _num_samples(directory: Path) -> int | None:
    """How many samples a checkpoint lists; None where that cannot be read."""
    try:
        return len(json.loads((directory / _STATE).read_text(encoding="utf-8"))["samples"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read(directory: Path, ppo: PPO) -> Progress:
    state: dict[str, Any] = json.loads((directory / _STATE).read_text(encoding="utf-8"))
    if state["format"] != _FORMAT:
        raise StartupError(f"{directory.name} has checkpoint format {state['format']}, expected {_FORMAT}")
    try:
        parts = {path.stem: load_file(path) for path in directory.glob("*.safetensors")}
        restore(ppo, parts, state["ppo"])
    except (ValueError, KeyError, SafetensorError) as error:
        raise StartupError(f"{directory.name} does not fit the configured models: {error}") from error
    return Progress(
        step=state["step"],
        version=state["version"],
        samples=tuple(LearnedSample(**sample) for sample in state["samples"]),
        counters=state["counters"],
    )
