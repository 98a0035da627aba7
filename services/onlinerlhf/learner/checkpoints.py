"""A directory of checkpoints: safetensors and JSON that appear complete, by rename.

`checksums.json`, written last, proves it: a checkpoint that does not match is set aside and the one before it is used.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from onlinerlhf.core.errors import CheckpointError
from onlinerlhf.learner.files import sync_directory, write_tensors, write_text

_log = logging.getLogger(__name__)
_PREFIX, _STAGING, _BROKEN = "step-", ".tmp", ".broken"
_STATE, _CHECKSUMS = "state.json", "checksums.json"

Parts = Mapping[str, Mapping[str, Tensor]]
Content = tuple[Parts, Mapping[str, Any]]
"""Tensors by part and name, and the rest as JSON."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint as read back."""

    path: Path
    parts: Parts
    state: dict[str, Any]


class Checkpoints:
    """The newest few checkpoints of one training. Synchronous: call it off the event loop."""

    def __init__(
        self, directory: Path, *, keep: int, lost_with: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda _: {}
    ) -> None:
        self.directory = directory
        self._keep = keep
        self._lost_with = lost_with
        """What to log of a damaged checkpoint's state, where that can still be read."""

    def save(self, step: int, content: Callable[[], Content]) -> Path:
        """Write a checkpoint, then forget the oldest. Raises CheckpointError; what was there stays."""
        target = self.directory / f"{_PREFIX}{step:08d}"
        staging = target.with_name(target.name + _STAGING)
        try:
            # It exists where an earlier try failed at the last sync: only that is left to be done.
            if not (target.exists() and self._is_good(target)):
                shutil.rmtree(staging, ignore_errors=True)
                staging.mkdir(parents=True)
                _write(staging, *content())
                sync_directory(staging)
                staging.rename(target)
            sync_directory(self.directory)
            for old in self._complete()[self._keep :]:
                shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise CheckpointError(f"cannot write checkpoint {target}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return target

    def newest(self) -> Saved | None:
        """The newest that is whole; None: there is none. Damaged ones are logged and set aside.

        Raises CheckpointError for one that cannot be read: that says nothing about what it holds.
        """
        try:
            for directory in self._complete():
                if self._is_good(directory):
                    parts = {path.stem: load_file(path) for path in directory.glob("*.safetensors")}
                    return Saved(directory, parts, json.loads((directory / _STATE).read_text(encoding="utf-8")))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"cannot read the checkpoints in {self.directory}: {error}") from error
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
            extra = {"checkpoint": directory.name, "error": damage, **self._lost_with(_state_if_readable(directory))}
            _log.error("broken checkpoint set aside", extra=extra)
            for earlier in self.directory.glob(f"*{_BROKEN}"):
                shutil.rmtree(earlier, ignore_errors=True)
            directory.rename(directory.with_name(directory.name + _BROKEN))
        return not damage


def _write(directory: Path, parts: Parts, state: Mapping[str, Any]) -> None:
    for name, tensors in parts.items():
        write_tensors(tensors, directory / f"{name}.safetensors")
    write_text(json.dumps(state), directory / _STATE)
    checksums = {path.name: _checksum(path) for path in sorted(directory.iterdir())}
    write_text(json.dumps(checksums), directory / _CHECKSUMS)


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


def _state_if_readable(directory: Path) -> Mapping[str, Any]:
    try:
        return dict(json.loads((directory / _STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
