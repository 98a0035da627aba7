"""A version pulled from the learner into a local file: complete, verified, or refused.

manifest (full, or a delta against the version held) -> entries of the complete version, checked against its digest
  -> <version>.safetensors.part: unlisted tensors copied from the parent's file, listed ones fetched, CRC-32 a chunk,
     a broken stream resumed at (tensor, offset)
  -> size, SHA-256 and finiteness of every tensor read back from disk -> renamed to <version>.safetensors

The engine is never touched: it goes on generating meanwhile. Files and hashes are handled off the event loop.
"""

import asyncio
import logging
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from onlinerlhf.core.errors import BaseMissing, ChecksumMismatch, Unavailable, WeightsRefused
from onlinerlhf.core.weights import Manifest, TensorEntry, entries_digest
from onlinerlhf.rollout import staged_file
from onlinerlhf.rollout.staged_file import Layout

log = logging.getLogger(__name__)

# A stream that breaks this often in a row without one new byte is given up for now.
_MAX_FRUITLESS_RESUMES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedChunk:
    """Consecutive bytes of one tensor."""

    tensor: str
    offset: int
    data: bytes
    crc32: int


Chunks = AsyncGenerator[ReceivedChunk, None]


class WeightSource(Protocol):
    """The learner, as a worker sees it."""

    async def manifest(self, *, have_version: int, wait_seconds: float, full: bool) -> Manifest:
        """The newest version; waits for one newer than `have_version`."""

    def fetch(self, *, version: int, tensors: tuple[str, ...], offset: int) -> Chunks:
        """The named tensors' bytes in order, from `offset` within the first on. Unavailable when the stream breaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedVersion:
    """A complete, verified version on disk."""

    version: int
    path: Path
    layout: Layout


class Staging:
    """One worker's staging directory. Holds the version applied last: the next delta's base."""

    def __init__(
        self,
        source: WeightSource,
        directory: Path,
        *,
        expected_shapes: dict[str, tuple[int, ...]],
        retry_seconds: float = 0.2,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.held: StagedVersion | None = None
        self._source = source
        self._directory = directory
        self._expected_shapes = expected_shapes
        self._retry_seconds = retry_seconds
        self._sleep = sleep

    def clear(self) -> None:
        """Remove what an earlier life of this worker left. Blocking."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for file in (*self._directory.glob("*.safetensors"), *self._directory.glob("*.part")):
            file.unlink()

    async def stage(self, manifest: Manifest) -> StagedVersion:
        """Pull one version. Raises WeightsRefused (and leaves nothing behind), NotFound or Unavailable."""
        described = self._describe(manifest)
        part = self._directory / f"{manifest.version}.safetensors.part"
        try:
            with await asyncio.to_thread(_create, part, described) as file:
                await self._copy_unlisted(manifest, file, described)
                await self._fetch(manifest, file, described)
            await asyncio.to_thread(staged_file.verify, part, described)
            path = part.with_suffix("")
            await asyncio.to_thread(part.rename, path)
        except OSError as error:
            raise WeightsRefused(f"version {manifest.version} cannot be staged: {error.strerror}") from error
        finally:
            await asyncio.to_thread(part.unlink, missing_ok=True)
        return StagedVersion(version=manifest.version, path=path, layout=described)

    async def keep(self, staged: StagedVersion) -> None:
        """`staged` was applied: it is the next delta's base, and its predecessor goes."""
        previous, self.held = self.held, staged
        if previous is not None and previous.path != staged.path:
            await asyncio.to_thread(previous.path.unlink, missing_ok=True)

    def _describe(self, manifest: Manifest) -> Layout:
        """The complete version's tensors: the manifest's own, or laid over those of the version held."""
        complete = {entry.name: entry for entry in manifest.tensors}
        if manifest.is_delta:
            if self.held is None or self.held.version != manifest.parent:
                held = "none" if self.held is None else str(self.held.version)
                raise BaseMissing(
                    f"version {manifest.version} is a delta against {manifest.parent}; the version held here is {held}"
                )
            complete = {entry.name: entry for entry in self.held.layout.entries} | complete
        entries = tuple(complete[name] for name in sorted(complete))
        if entries_digest(entries) != manifest.digest:
            raise ChecksumMismatch(f"the tensors of version {manifest.version} do not add up to its digest")
        self._check_shapes(manifest.version, entries)
        return staged_file.layout(entries)

    def _check_shapes(self, version: int, entries: tuple[TensorEntry, ...]) -> None:
        """Refuses another model's weights while the engine can still go on with its own."""
        offered = {entry.name: entry.shape for entry in entries}
        missing = self._expected_shapes.keys() - offered.keys()
        if missing:
            raise WeightsRefused(f"version {version} lacks {len(missing)} tensors, {min(missing)} among them")
        for name, shape in self._expected_shapes.items():
            if offered[name] != shape:
                raise WeightsRefused(f"{name} of version {version} has shape {offered[name]}, expected {shape}")

    async def _copy_unlisted(self, manifest: Manifest, file: BinaryIO, described: Layout) -> None:
        if self.held is not None and manifest.is_delta:
            unlisted = {entry.name for entry in described.entries} - {entry.name for entry in manifest.tensors}
            await asyncio.to_thread(
                staged_file.copy_tensors, self.held.path, self.held.layout, file, described, unlisted
            )

    async def _fetch(self, manifest: Manifest, file: BinaryIO, described: Layout) -> None:
        """Fill in the listed tensors, over as many streams as it takes."""
        cursor = _Cursor(manifest.tensors)
        fruitless = 0
        while not cursor.done:
            before = cursor.num_received
            try:
                await self._fetch_once(manifest.version, cursor, file, described)
                if not cursor.done and cursor.num_received == before:
                    raise ChecksumMismatch(f"the learner sends no more of version {manifest.version}: truncated")
            except Unavailable as error:
                fruitless = fruitless + 1 if cursor.num_received == before else 0
                if fruitless > _MAX_FRUITLESS_RESUMES:
                    raise
                log.info(
                    "weights stream broke; resuming",
                    extra={"version": manifest.version, "received_bytes": cursor.num_received, "error": str(error)},
                )
                await self._sleep(self._retry_seconds * 2**fruitless)

    async def _fetch_once(self, version: int, cursor: "_Cursor", file: BinaryIO, described: Layout) -> None:
        names, offset = cursor.rest()
        async with aclosing(self._source.fetch(version=version, tensors=names, offset=offset)) as chunks:
            await self._take(version, chunks, cursor, file, described)

    async def _take(
        self,
        version: int,
        chunks: Chunks,
        cursor: "_Cursor",
        file: BinaryIO,
        described: Layout,
    ) -> None:
        async for chunk in chunks:
            if not cursor.accepts(chunk):
                raise ChecksumMismatch(f"a chunk of version {version} is not the one that was due")
            if zlib.crc32(chunk.data) != chunk.crc32:
                raise ChecksumMismatch(f"CRC-32 of a chunk of {chunk.tensor} does not match")
            await asyncio.to_thread(_write, file, described.offsets[chunk.tensor] + chunk.offset, chunk.data)
            cursor.advance(len(chunk.data))


class _Cursor:
    """The next byte that is due."""

    def __init__(self, entries: tuple[TensorEntry, ...]) -> None:
        self.num_received = 0
        self._entries = entries
        self._index = 0
        self._offset = 0
        self._skip_complete()

    @property
    def done(self) -> bool:
        return self._index == len(self._entries)

    def rest(self) -> tuple[tuple[str, ...], int]:
        return tuple(entry.name for entry in self._entries[self._index :]), self._offset

    def accepts(self, chunk: ReceivedChunk) -> bool:
        if self.done or not chunk.data:
            return False
        due = self._entries[self._index]
        fits = chunk.offset + len(chunk.data) <= due.num_bytes
        return chunk.tensor == due.name and chunk.offset == self._offset and fits

    def advance(self, num_bytes: int) -> None:
        self.num_received += num_bytes
        self._offset += num_bytes
        self._skip_complete()

    def _skip_complete(self) -> None:
        while not self.done and self._offset == self._entries[self._index].num_bytes:
            self._index, self._offset = self._index + 1, 0


def _create(path: Path, described: Layout) -> BinaryIO:
    """The file at its full size, so that a full disk is found before anything is fetched where that can be known."""
    file = path.open("w+b")
    try:
        file.truncate(described.total_bytes)
        file.write(described.header)
    except OSError:
        file.close()
        raise
    return file


def _write(file: BinaryIO, position: int, data: bytes) -> None:
    file.seek(position)
    file.write(data)
