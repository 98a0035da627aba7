"""The learner's WeightService as a WeightSource: gRPC in, core values out."""

from typing import TYPE_CHECKING

import grpc

from onlinerlhf.core.errors import NotFound, Unavailable
from onlinerlhf.core.weights import Manifest
from onlinerlhf.rollout.staging import Chunks, ReceivedChunk
from onlinerlhf.runtime import channels, wire
from onlinerlhf.v1 import weights_pb2, weights_pb2_grpc

if TYPE_CHECKING:
    from onlinerlhf.v1.weights_pb2_grpc import WeightServiceAsyncStub

# On top of the time the learner may hold a question for.
_ANSWER_SECONDS = 10.0


class LearnerSource:
    """Pulls one weight line from one learner over one channel."""

    def __init__(self, channel: grpc.aio.Channel, *, fetch_timeout_seconds: float, line: str = "policy") -> None:
        self._stub: WeightServiceAsyncStub = weights_pb2_grpc.WeightServiceStub(channel)
        self._fetch_timeout_seconds = fetch_timeout_seconds
        self._line = line

    async def manifest(self, *, have_version: int, wait_seconds: float, full: bool) -> Manifest:
        """The newest version; waits for one newer than `have_version`. Unavailable where the line is not offered."""
        request = weights_pb2.GetManifestRequest(
            have_version=have_version, wait_seconds=wait_seconds, full=full, line=self._line
        )
        try:
            response = await self._stub.GetManifest(request, timeout=wait_seconds + _ANSWER_SECONDS)
        except grpc.aio.AioRpcError as error:
            mapped = channels.map_error(error, "asking the learner for its newest version")
            # Another learner, or this one set up otherwise, may offer it later.
            raise (Unavailable(str(mapped)) if isinstance(mapped, NotFound) else mapped) from error
        return wire.manifest_from_proto(response.manifest)

    async def fetch(self, *, version: int, tensors: tuple[str, ...], offset: int) -> Chunks:
        """The named tensors' bytes in order, from `offset` within the first on."""
        request = weights_pb2.FetchRequest(version=version, tensors=tensors, offset=offset, line=self._line)
        call = self._stub.Fetch(request, timeout=self._fetch_timeout_seconds)
        try:
            async for chunk in call:
                yield ReceivedChunk(tensor=chunk.tensor, offset=chunk.offset, data=chunk.data, crc32=chunk.crc32)
        except grpc.aio.AioRpcError as error:
            raise channels.map_error(error, f"fetching version {version}") from error
        finally:
            call.cancel()
