"""A WeightService on a real socket, with ways to spoil what it sends."""

import asyncio
import hashlib
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import numpy as np

from onlinerlhf.core.weights import Manifest, TensorEntry, entries_digest
from onlinerlhf.runtime.wire import manifest_to_proto
from onlinerlhf.v1 import weights_pb2, weights_pb2_grpc

Tensors = dict[str, np.ndarray]
CHUNK_BYTES = 64 * 1024


def describe(version: int, tensors: Tensors) -> Manifest:
    entries = tuple(_entry(name, tensors[name]) for name in sorted(tensors))
    return Manifest(version=version, parent=0, tensors=entries, digest=entries_digest(entries))


def _entry(name: str, tensor: np.ndarray) -> TensorEntry:
    data = tensor.tobytes()
    return TensorEntry(
        name=name, dtype="F32", shape=tensor.shape, num_bytes=len(data), sha256=hashlib.sha256(data).digest()
    )


class WeightServer(weights_pb2_grpc.WeightServiceServicer):
    """Offers the newest of what was published, as a delta to those who hold an older one."""

    def __init__(self) -> None:
        self.versions: dict[int, Tensors] = {}
        self.target = ""
        self.asked_full: list[bool] = []
        self.fetched: list[tuple[str, ...]] = []
        self.spoil: Callable[[weights_pb2.Chunk], weights_pb2.Chunk] = lambda chunk: chunk
        self.claim_parent: int | None = None
        """Offer deltas against this version instead of the one the worker holds."""
        self._published = asyncio.Event()
        self._server = grpc.aio.server()
        weights_pb2_grpc.add_WeightServiceServicer_to_server(self, self._server)

    async def start(self) -> None:
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.target = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(0)

    def publish(self, tensors: Tensors) -> int:
        version = max(self.versions, default=0) + 1
        self.versions[version] = tensors
        self._published.set()
        self._published = asyncio.Event()
        return version

    async def GetManifest(self, request: Any, context: Any) -> weights_pb2.GetManifestResponse:
        self.asked_full.append(request.full)
        if max(self.versions, default=0) <= request.have_version:
            try:
                async with asyncio.timeout(request.wait_seconds):
                    await self._published.wait()
            except TimeoutError:
                pass
        newest = max(self.versions)
        manifest = describe(newest, self.versions[newest])
        parent = self.claim_parent or request.have_version
        if not request.full and request.have_version in self.versions and request.have_version != newest:
            known = set(describe(0, self.versions[request.have_version]).tensors)
            changed = tuple(each for each in manifest.tensors if each not in known)
            manifest = Manifest(version=newest, parent=parent, tensors=changed, digest=manifest.digest)
        return weights_pb2.GetManifestResponse(manifest=manifest_to_proto(manifest))

    async def Fetch(self, request: Any, context: Any) -> AsyncIterator[weights_pb2.Chunk]:
        self.fetched.append(tuple(request.tensors))
        offset = request.offset
        for name in request.tensors:
            data = self.versions[request.version][name].tobytes()
            for start in range(offset, len(data), CHUNK_BYTES):
                piece = data[start : start + CHUNK_BYTES]
                yield self.spoil(weights_pb2.Chunk(tensor=name, offset=start, data=piece, crc32=zlib.crc32(piece)))
            offset = 0
