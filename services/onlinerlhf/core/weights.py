"""What the learner offers and a worker pulls: a version's manifest."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum


class Line(StrEnum):
    """Which weights of a version: each line has its own under the same number."""

    POLICY = "policy"
    """Those that are trained."""
    EMA = "ema"
    """Their exponential moving average."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """One tensor of a version."""

    name: str
    dtype: str
    """As safetensors spells it: F32, BF16, F16, …"""
    shape: tuple[int, ...]
    num_bytes: int
    sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A policy version: complete (parent 0), or a delta against its parent."""

    version: int
    parent: int
    tensors: tuple[TensorEntry, ...]
    """All of the version's tensors in name order, or those that differ from the parent's."""
    digest: bytes
    """Of all the version's entries (see `entries_digest`), so that parent + delta can be checked as a whole."""

    @property
    def is_delta(self) -> bool:
        """Whether tensors that are not listed come from the parent."""
        return self.parent != 0

    @property
    def num_bytes(self) -> int:
        """Size of the listed tensors."""
        return sum(entry.num_bytes for entry in self.tensors)


def entries_digest(entries: tuple[TensorEntry, ...]) -> bytes:
    """SHA-256 over name, dtype, shape and checksum of the entries in name order. 32 bytes."""
    digest = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: entry.name):
        shape = ",".join(str(size) for size in entry.shape)
        digest.update(f"{entry.name}\0{entry.dtype}\0{shape}\0{entry.sha256.hex()}\n".encode())
    return digest.digest()
