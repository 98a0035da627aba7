"""The versions of one weight line on disk: one safetensors file each, whose header also holds the tensors' checksums.

A file appears complete, by rename, and never changes afterwards; the last few are kept so that a fetch in progress can
end and a worker that is a little behind can be served a delta.
"""

import hashlib
import json
import logging
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from onlinerlhf.core.errors import NonFiniteWeights, NotFound, WeightsRefused
from onlinerlhf.core.weights import Manifest, TensorEntry, entries_digest
from onlinerlhf.learner.files import write_tensors

_log = logging.getLogger(__name__)
_PREFIX, _SUFFIX, _STAGING = "version-", ".safetensors", ".tmp"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVersion:
    """A complete version and where its tensors' bytes lie."""

    manifest: Manifest
    path: Path
    offsets: dict[str, int]
    """First byte of each tensor within the file."""


def exported_tensors(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Named weights as they are written: on the CPU, in the published dtype. Raises NonFiniteWeights."""
    exported: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        wanted = dtype if tensor.is_floating_point() else tensor.dtype
        exported[name] = tensor.to("cpu", wanted).contiguous()
        if not bool(exported[name].isfinite().all()):
            raise NonFiniteWeights(f"{name} holds NaN or infinity as {wanted}")
    return exported


def describe(tensors: Mapping[str, Tensor], version: int) -> Manifest:
    """The complete manifest of a version's tensors."""
    entries = tuple(_entry(name, tensors[name]) for name in sorted(tensors))
    return Manifest(version=version, parent=0, tensors=entries, digest=entries_digest(entries))


def delta(manifest: Manifest, parent: Manifest) -> Manifest:
    """A complete manifest less the tensors that its parent has unchanged."""
    known = {entry.name: entry for entry in parent.tensors}
    changed = tuple(entry for entry in manifest.tensors if known.get(entry.name) != entry)
    return replace(manifest, parent=parent.version, tensors=changed)


class VersionStore:
    """The directory of versions. Synchronous: call it off the event loop."""

    def __init__(self, directory: Path, *, dtype: torch.dtype = torch.float32, keep: int = 4) -> None:
        self.directory = directory
        self._dtype = dtype
        self._keep = keep
        self._stored: dict[int, StoredVersion] = {}

    def load(self) -> None:
        """Find what an earlier process left; what it left unfinished is deleted."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for leftover in self.directory.glob(f"*{_STAGING}"):
            leftover.unlink()
        for path in self.directory.glob(f"{_PREFIX}*{_SUFFIX}"):
            try:
                stored = _read(path)
            except (SafetensorError, OSError, ValueError, KeyError) as error:
                _log.warning("unreadable version ignored", extra={"file": path.name, "error": type(error).__name__})
                continue
            self._stored[stored.manifest.version] = stored

    @property
    def newest(self) -> Manifest | None:
        """The complete manifest of the highest version."""
        return self._stored[max(self._stored)].manifest if self._stored else None

    def newest_number(self) -> int:
        """The highest number in use, readable or not; 0: none."""
        return max((_number(path) for path in self.directory.glob(f"{_PREFIX}*{_SUFFIX}")), default=0)

    def get(self, version: int) -> StoredVersion:
        """Raises NotFound for a version that is not kept (any more)."""
        stored = self._stored.get(version)
        if stored is None:
            raise NotFound(f"version {version} is not on offer; the newest is {max(self._stored, default=0)}")
        return stored

    def holds(self, tensors: Mapping[str, Tensor], version: int) -> bool:
        """Whether this is the newest version and has exactly these weights."""
        newest = self.newest
        if newest is None or newest.version != version:
            return False
        return describe(exported_tensors(tensors, self._dtype), version).digest == newest.digest

    def save(self, tensors: Mapping[str, Tensor], version: int) -> Manifest:
        """Write a new version and forget the oldest. OSError leaves what was there."""
        if version <= self.newest_number():
            raise WeightsRefused(f"version {version} is taken: the newest is {self.newest_number()}")
        exported = exported_tensors(tensors, self._dtype)
        manifest = describe(exported, version)
        path = self.directory / f"{_PREFIX}{version:08d}{_SUFFIX}"
        staging = path.with_name(path.name + _STAGING)
        checksums = json.dumps({entry.name: entry.sha256.hex() for entry in manifest.tensors})
        try:
            write_tensors(exported, staging, {"format": "pt", "version": str(version), "sha256": checksums})
            # Read back before the rename: once it has its name, the number is taken.
            stored = replace(_read(staging), path=path)
            # Not synced further: losing the rename in a power cut loses a version, whose number is not used again.
            staging.rename(path)
        finally:
            staging.unlink(missing_ok=True)
        self._stored[version] = stored
        self._forget_old()
        return manifest

    def _forget_old(self) -> None:
        for version in sorted(self._stored)[: -self._keep]:
            self._stored.pop(version).path.unlink(missing_ok=True)


def _entry(name: str, tensor: Tensor) -> TensorEntry:
    raw = tensor.reshape(-1).view(torch.uint8).numpy()
    return TensorEntry(
        name=name,
        dtype=_DTYPES[tensor.dtype],
        shape=tuple(tensor.shape),
        num_bytes=raw.nbytes,
        sha256=hashlib.sha256(raw.data).digest(),
    )


def _read(path: Path) -> StoredVersion:
    """From the file's header alone: 8 bytes of length, JSON, then the tensors' bytes."""
    with safe_open(path, framework="pt"):
        pass  # Checks the header, and that the file is as long as it says.
    with path.open("rb") as stream:
        (header_bytes,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(header_bytes))
    metadata = header.pop("__metadata__")
    checksums = json.loads(metadata["sha256"])
    entries = tuple(
        TensorEntry(
            name=name,
            dtype=header[name]["dtype"],
            shape=tuple(header[name]["shape"]),
            num_bytes=header[name]["data_offsets"][1] - header[name]["data_offsets"][0],
            sha256=bytes.fromhex(checksums[name]),
        )
        for name in sorted(header)
    )
    manifest = Manifest(version=int(metadata["version"]), parent=0, tensors=entries, digest=entries_digest(entries))
    offsets = {name: 8 + header_bytes + header[name]["data_offsets"][0] for name in header}
    return StoredVersion(manifest=manifest, path=path, offsets=offsets)


def _number(path: Path) -> int:
    digits = path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
    return int(digits) if digits.isdecimal() else 0


_DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
