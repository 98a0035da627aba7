"""WeightService: manifests and chunks of versions, on each weight line."""

import asyncio
import os
import zlib
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from onlinerlhf.core.errors import InvalidInput, NotFound
from onlinerlhf.learner.lines import WeightLines
from onlinerlhf.learner.versions import StoredVersion
from onlinerlhf.runtime.wire import manifest_to_proto
from onlinerlhf.v1 import weights_pb2, weights_pb2_grpc

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

CHUNK_BYTES = 1 << 20
MAX_WAIT_SECONDS = 60.0
# What is left of the caller's deadline to answer in, once a wait has ended.
_ANSWER_SECONDS = 0.2


class WeightServicer(weights_pb2_grpc.WeightServiceServicer):
    """Serves what the lines offer."""

    def __init__(self, lines: WeightLines) -> None:
        self._lines = lines

    async def GetManifest(
        self, request: weights_pb2.GetManifestRequest, context: "Context"
    ) -> weights_pb2.GetManifestResponse:
        """Long poll for a version newer than the caller's."""
        wait_seconds = min(request.wait_seconds, MAX_WAIT_SECONDS)
        remaining = context.time_remaining()
        if remaining is not None:
            wait_seconds = min(wait_seconds, remaining - _ANSWER_SECONDS)
        publisher = self._lines.named(request.line)
        manifest = await publisher.newer_than(
            request.have_version, wait_seconds=max(wait_seconds, 0.0), full=request.full
        )
        return weights_pb2.GetManifestResponse(manifest=manifest_to_proto(manifest))

    async def Fetch(self, request: weights_pb2.FetchRequest, context: "Context") -> AsyncIterator[weights_pb2.Chunk]:
        """Stream the named tensors, the first from an offset on."""
        stored = self._lines.named(request.line).get(request.version)
        parts = _parts(stored, request.tensors, request.offset)
        # Held open throughout: a version that is dropped meanwhile can still be read to its end.
        descriptor = await asyncio.to_thread(_open, stored)
        try:
            for tensor, start, num_bytes in parts:
                for offset in range(start, num_bytes, CHUNK_BYTES):
                    size = min(CHUNK_BYTES, num_bytes - offset)
                    position = stored.offsets[tensor] + offset
                    data, checksum = await asyncio.to_thread(_read, descriptor, size, position)
                    yield weights_pb2.Chunk(tensor=tensor, offset=offset, data=data, crc32=checksum)
        finally:
            os.close(descriptor)


def _parts(stored: StoredVersion, tensors: Sequence[str], offset: int) -> list[tuple[str, int, int]]:
    """(tensor, first byte, size) of what is asked for."""
    sizes = {entry.name: entry.num_bytes for entry in stored.manifest.tensors}
    names = list(tensors) or list(sizes)
    unknown = [name for name in names if name not in sizes]
    if unknown:
        raise NotFound(f"version {stored.manifest.version} has no tensor {unknown[0][:200]!r}")
    if offset > sizes[names[0]]:
        raise InvalidInput(f"offset {offset} lies beyond the {sizes[names[0]]} bytes of {names[0]}", reason="offset")
    return [(name, offset if place == 0 else 0, sizes[name]) for place, name in enumerate(names)]


def _open(stored: StoredVersion) -> int:
    try:
        return os.open(stored.path, os.O_RDONLY)
    except FileNotFoundError as error:
        raise NotFound(f"version {stored.manifest.version} is not on offer any more") from error


def _read(descriptor: int, size: int, position: int) -> tuple[bytes, int]:
    data = os.pread(descriptor, size, position)
    return data, zlib.crc32(data)
