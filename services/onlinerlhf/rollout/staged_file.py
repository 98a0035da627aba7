"""A staged version on disk: a complete safetensors file, written piece by piece, checked as a whole. numpy only.

Layout (safetensors): 8 bytes little-endian header length N, N bytes of JSON {name: {dtype, shape, data_offsets}}, then
the tensors' bytes one after another, offsets relative to the end of the header.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from onlinerlhf.core.errors import ChecksumMismatch, NonFiniteWeights, WeightsRefused
from onlinerlhf.core.weights import TensorEntry

_ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
# The exponent bits of each floating format: all of them set means NaN or infinity. Integers have no such values.
_EXPONENT_BITS: Mapping[str, tuple[np.dtype[np.unsignedinteger[Any]], int]] = {
    "F64": (np.dtype("<u8"), 0x7FF0_0000_0000_0000),
    "F32": (np.dtype("<u4"), 0x7F80_0000),
    "F16": (np.dtype("<u2"), 0x7C00),
    "BF16": (np.dtype("<u2"), 0x7F80),
}
_BLOCK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where each tensor of a version lies in its file."""

    entries: tuple[TensorEntry, ...]
    """In file order."""
    header: bytes
    offsets: Mapping[str, int]
    """Of each tensor's first byte, from the start of the file."""

    @property
    def total_bytes(self) -> int:
        """Size of the file."""
        return len(self.header) + sum(entry.num_bytes for entry in self.entries)


def layout(entries: Sequence[TensorEntry]) -> Layout:
    """The file for these tensors. Raises WeightsRefused where an entry contradicts itself."""
    described: dict[str, object] = {}
    relative: dict[str, int] = {}
    position = 0
    for entry in entries:
        _check_entry(entry)
        relative[entry.name] = position
        described[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [position, position + entry.num_bytes],
        }
        position += entry.num_bytes
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    return Layout(
        entries=tuple(entries), header=header, offsets={name: len(header) + at for name, at in relative.items()}
    )


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: tuple(each["shape"]) for name, each in header.items() if name != "__metadata__"}


def copy_tensors(source: Path, source_layout: Layout, target: BinaryIO, target_layout: Layout, names: set[str]) -> None:
    """Copy tensors that a delta does not list from its parent's file."""
    with source.open("rb") as parent:
        for entry in target_layout.entries:
            if entry.name in names:
                parent.seek(source_layout.offsets[entry.name])
                target.seek(target_layout.offsets[entry.name])
                left = entry.num_bytes
                while left:
                    block = parent.read(min(left, _BLOCK_BYTES))
                    if not block:
                        raise ChecksumMismatch(f"the parent's file ends within {entry.name}")
                    target.write(block)
                    left -= len(block)


def verify(path: Path, described: Layout) -> None:
    """Read the whole file back: size, SHA-256 of every tensor, and no NaN or infinity anywhere."""
    size = path.stat().st_size
    if size != described.total_bytes:
        raise ChecksumMismatch(f"the staged file has {size} bytes, expected {described.total_bytes}")
    with path.open("rb") as file:
        for entry in described.entries:
            file.seek(described.offsets[entry.name])
            _verify_tensor(file, entry)


def _verify_tensor(file: BinaryIO, entry: TensorEntry) -> None:
    digest = hashlib.sha256()
    finite = True
    left = entry.num_bytes
    while left:
        block = file.read(min(left, _BLOCK_BYTES))
        digest.update(block)
        finite = finite and is_finite(block, entry.dtype)
        left -= len(block)
    if digest.digest() != entry.sha256:
        raise ChecksumMismatch(f"SHA-256 of {entry.name} differs from the manifest's")
    if not finite:
        raise NonFiniteWeights(f"{entry.name} holds NaN or infinity")


def is_finite(block: bytes, dtype: str) -> bool:
    """Whether no element is NaN or infinity. `block` holds whole elements of a safetensors dtype."""
    if dtype not in _EXPONENT_BITS:
        return True
    words, mask = _EXPONENT_BITS[dtype]
    bits = np.frombuffer(block, dtype=words)
    return not bool(np.any((bits & words.type(mask)) == words.type(mask)))


def _check_entry(entry: TensorEntry) -> None:
    if entry.dtype not in _ITEM_BYTES:
        raise WeightsRefused(f"{entry.name} has dtype {entry.dtype!r}, which is unknown here")
    expected = prod(entry.shape) * _ITEM_BYTES[entry.dtype]
    if entry.num_bytes != expected or len(entry.sha256) != 32:
        raise WeightsRefused(f"the manifest contradicts itself about {entry.name}")
