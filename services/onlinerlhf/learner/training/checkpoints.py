"""Checkpoints of an offline training: a directory of safetensors and JSON that appears complete, by rename.

`checksums.json`, written last, proves it: a directory that does not match is set aside and the one before it is used.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from onlinerlhf.core.errors import CheckpointError
from onlinerlhf.learner.files import sync_directory, write_tensors, write_text

_log = logging.getLogger(__name__)
_PREFIX, _STAGING, _BROKEN = "step-", ".tmp", ".broken"
_STATE, _CHECKSUMS = "state.json", "checksums.json"

Parts = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint as read back."""

    path: Path
    parts: Parts
    state: dict[str, Any]


class Checkpoints:
    """The newest few checkpoints of one training."""

    def __init__(self, directory: Path, *, keep: int) -> None:
        self.directory = directory
        self._keep = keep

    def save(self, step: int, parts: Parts, state: Mapping[str, Any]) -> Path:
        """Write a checkpoint, then forget the oldest. Raises CheckpointError; what was there stays."""
        target = self.directory / f"{_PREFIX}{step:08d}"
        staging = target.with_name(target.name + _STAGING)
        try:
            for leftover in (staging, target):  # A target of this step is one that was found broken or made before.
                shutil.rmtree(leftover, ignore_errors=True)
            staging.mkdir(parents=True)
            for name, tensors in parts.items():
                write_tensors(tensors, staging / f"{name}.safetensors")
            write_text(json.dumps(state), staging / _STATE)
            checksums = {path.name: _checksum(path) for path in sorted(staging.iterdir())}
            write_text(json.dumps(checksums), staging / _CHECKSUMS)
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
        """The newest that is whole. Damaged ones are logged and set aside.

        Raises CheckpointError for one that cannot be read: that says nothing about what it holds.
        """
        try:
            for directory in self._complete():
                damage = _damage(directory)
                if not damage:
                    parts = {path.stem: load_file(path) for path in directory.glob("*.safetensors")}
                    return Saved(directory, parts, json.loads((directory / _STATE).read_text(encoding="utf-8")))
                _log.error("broken checkpoint set aside", extra={"checkpoint": directory.name, "error": damage})
                aside = directory.with_name(directory.name + _BROKEN)
                shutil.rmtree(aside, ignore_errors=True)
                directory.rename(aside)
        except OSError as error:
            raise CheckpointError(f"cannot read the checkpoints in {self.directory}: {error}") from error
        return None

    def _complete(self) -> list[Path]:
        """Newest first."""
        if not self.directory.exists():
            return []
        names = [path.name for path in self.directory.iterdir()]
        found = [name for name in names if name.startswith(_PREFIX) and not name.endswith((_STAGING, _BROKEN))]
        return [self.directory / name for name in sorted(found, reverse=True)]


def _damage(directory: Path) -> str:
    """What is wrong with a checkpoint's content; empty: nothing."""
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


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
