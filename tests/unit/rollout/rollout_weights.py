"""A learner in memory: versions of made-up tensors, and ways to spoil them on their way."""

import hashlib
import zlib
from collections.abc import Callable

import numpy as np

from onlinerlhf.core.errors import NotFound, Unavailable
from onlinerlhf.core.weights import Manifest, TensorEntry, entries_digest
from onlinerlhf.rollout.staging import Chunks, ReceivedChunk

Tensors = dict[str, np.ndarray]
CHUNK_BYTES = 64


def entry(name: str, tensor: np.ndarray) -> TensorEntry:
    data = tensor.astype("<f4").tobytes()
    return TensorEntry(
        name=name, dtype="F32", shape=tensor.shape, num_bytes=len(data), sha256=hashlib.sha256(data).digest()
    )


def full(version: int, tensors: Tensors) -> Manifest:
    entries = tuple(entry(name, tensors[name]) for name in sorted(tensors))
    return Manifest(version=version, parent=0, tensors=entries, digest=entries_digest(entries))


def delta(version: int, tensors: Tensors, *, parent: int, parent_tensors: Tensors) -> Manifest:
    complete = full(version, tensors)
    known = {each.name: each for each in full(parent, parent_tensors).tensors}
    changed = tuple(each for each in complete.tensors if known.get(each.name) != each)
    return Manifest(version=version, parent=parent, tensors=changed, digest=complete.digest)


class FakeLearner:
    """Offers the newest of `versions`; `spoil` sees every chunk and may change it or raise."""

    def __init__(self) -> None:
        self.versions: dict[int, Tensors] = {}
        self.manifests: list[tuple[int, bool]] = []
        self.fetches: list[tuple[int, tuple[str, ...], int]] = []
        self.spoil: Callable[[ReceivedChunk], ReceivedChunk] = lambda chunk: chunk
        self.end_after_chunks: int | None = None
        self.away = False

    async def manifest(self, *, have_version: int, wait_seconds: float, full: bool) -> Manifest:
        del wait_seconds
        if self.away:
            raise Unavailable("the learner is away")
        self.manifests.append((have_version, full))
        newest = max(self.versions)
        if have_version in self.versions and have_version != newest and not full:
            return delta(newest, self.versions[newest], parent=have_version, parent_tensors=self.versions[have_version])
        return _full(newest, self.versions[newest])

    async def fetch(self, *, version: int, tensors: tuple[str, ...], offset: int) -> Chunks:
        self.fetches.append((version, tensors, offset))
        if version not in self.versions:
            raise NotFound(f"version {version} is not on offer")
        num_chunks = 0
        for name in tensors:
            data = self.versions[version][name].astype("<f4").tobytes()
            for start in range(offset, len(data), CHUNK_BYTES):
                if num_chunks == self.end_after_chunks:
                    return
                piece = data[start : start + CHUNK_BYTES]
                yield self.spoil(ReceivedChunk(tensor=name, offset=start, data=piece, crc32=zlib.crc32(piece)))
                num_chunks += 1
            offset = 0


_full = full
