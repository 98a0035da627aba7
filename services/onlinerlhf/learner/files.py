"""Writing files that survive a power cut."""

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def sync_file(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Wait until a directory's entries (creations, renames) are on the disk."""
    sync_file(path)


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """A safetensors file, synced. Raises OSError whatever the library calls a full disk."""
    try:
        save_file(dict(tensors), path, metadata=metadata)
    except SafetensorError as error:
        raise OSError(f"cannot write {path.name}: {error}") from error
    sync_file(path)


def write_text(text: str, path: Path) -> None:
    """A text file, synced."""
    path.write_text(text, encoding="utf-8")
    sync_file(path)
