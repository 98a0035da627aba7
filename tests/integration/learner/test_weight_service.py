import asyncio
import hashlib
import zlib
from collections.abc import AsyncIterable, AsyncIterator
from functools import partial
from pathlib import Path

import grpc
import pytest
import torch
from transformers import Qwen3ForCausalLM

from onlinerlhf.core.errors import CheckpointError
from onlinerlhf.core.weights import Line
from onlinerlhf.learner.checkpoint import Progress
from onlinerlhf.learner.lines import WeightLines
from onlinerlhf.learner.publisher import Publisher, Weights
from onlinerlhf.learner.service import LearnerServicer
from onlinerlhf.learner.status import Phase, Status
from onlinerlhf.learner.tensors import unique_tensors
from onlinerlhf.learner.versions import VersionStore
from onlinerlhf.learner.weight_service import CHUNK_BYTES, WeightServicer
from onlinerlhf.runtime.interceptor import CallInterceptor
from onlinerlhf.v1 import learner_pb2, learner_pb2_grpc, weights_pb2, weights_pb2_grpc
from unit.learner.tiny import tiny_config


def _wide_weights(seed: int = 0) -> Weights:
    """Of a policy whose embedding spans three chunks."""
    torch.manual_seed(seed)
    config = tiny_config()
    config.vocab_size = 5 * CHUNK_BYTES // 2 // (4 * config.hidden_size)
    return partial(unique_tensors, Qwen3ForCausalLM(config))


EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture
async def publisher(tmp_path: Path) -> Publisher:
    publisher = Publisher(VersionStore(tmp_path / "versions", keep=2))
    await publisher.load()
    return publisher


@pytest.fixture
async def learner() -> Status:
    return Status(batch_size=4)


@pytest.fixture
async def channel(publisher: Publisher, learner: Status) -> AsyncIterator[grpc.aio.Channel]:
    async def checkpoint() -> Progress:
        if learner.phase == Phase.WAITING:
            raise CheckpointError("cannot write checkpoint step-00000003: No space left on device")
        return Progress(step=3, version=4)

    server = grpc.aio.server(interceptors=[CallInterceptor(max_call_seconds=60)])
    servicer = WeightServicer(WeightLines({Line.POLICY: publisher}))
    weights_pb2_grpc.add_WeightServiceServicer_to_server(servicer, server)
    learner_pb2_grpc.add_LearnerServiceServicer_to_server(LearnerServicer(learner, checkpoint), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


@pytest.fixture
def weights(channel: grpc.aio.Channel) -> "weights_pb2_grpc.WeightServiceAsyncStub":
    return weights_pb2_grpc.WeightServiceStub(channel)


async def _collect(call: AsyncIterable[weights_pb2.Chunk]) -> dict[str, bytes]:
    tensors: dict[str, bytes] = {}
    async for chunk in call:
        assert zlib.crc32(chunk.data) == chunk.crc32
        assert len(chunk.data) <= CHUNK_BYTES
        tensors[chunk.tensor] = tensors.get(chunk.tensor, b"") + chunk.data
    return tensors


async def test_what_is_fetched_matches_the_manifest_byte_for_byte(
    publisher: Publisher, weights: "weights_pb2_grpc.WeightServiceAsyncStub"
) -> None:
    await publisher.publish(_wide_weights(), 1)
    manifest = (await weights.GetManifest(weights_pb2.GetManifestRequest(), timeout=10)).manifest
    assert (manifest.version, manifest.parent) == (1, 0)
    tensors = await _collect(weights.Fetch(weights_pb2.FetchRequest(version=1), timeout=10))
    assert list(tensors) == [entry.name for entry in manifest.tensors]
    for entry in manifest.tensors:
        assert len(tensors[entry.name]) == entry.num_bytes
        assert hashlib.sha256(tensors[entry.name]).digest() == entry.sha256


async def test_a_fetch_resumes_in_the_middle_of_a_tensor(
    publisher: Publisher, weights: "weights_pb2_grpc.WeightServiceAsyncStub"
) -> None:
    manifest = await publisher.publish(_wide_weights(), 1)
    names = [entry.name for entry in manifest.tensors]
    names = names[names.index(EMBEDDING) :]
    whole = await _collect(weights.Fetch(weights_pb2.FetchRequest(version=1, tensors=names), timeout=10))
    offset = CHUNK_BYTES + 12_345
    request = weights_pb2.FetchRequest(version=1, tensors=names, offset=offset)
    rest = await _collect(weights.Fetch(request, timeout=10))
    assert rest == {**whole, EMBEDDING: whole[EMBEDDING][offset:]}


async def test_a_fetch_begun_before_its_version_was_dropped_runs_to_its_end(
    publisher: Publisher, weights: "weights_pb2_grpc.WeightServiceAsyncStub"
) -> None:
    manifest = await publisher.publish(_wide_weights(), 1)
    call = weights.Fetch(weights_pb2.FetchRequest(version=1, tensors=[EMBEDDING]), timeout=10)
    chunks = aiter(call)
    first = await anext(chunks)
    for version in (2, 3):
        await publisher.publish(_wide_weights(version), version)
    rest = await _collect(chunks)
    expected = next(entry.sha256 for entry in manifest.tensors if entry.name == EMBEDDING)
    assert hashlib.sha256(first.data + rest[EMBEDDING]).digest() == expected
    with pytest.raises(grpc.aio.AioRpcError, match="version 1 is not on offer; the newest is 3") as caught:
        await _collect(weights.Fetch(weights_pb2.FetchRequest(version=1), timeout=10))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (weights_pb2.FetchRequest(version=1, tensors=["no.such.weight"]), grpc.StatusCode.NOT_FOUND),
        (
            weights_pb2.FetchRequest(version=1, tensors=["model.norm.weight"], offset=129),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (weights_pb2.FetchRequest(version=1, line="emma"), grpc.StatusCode.INVALID_ARGUMENT),
        (weights_pb2.FetchRequest(version=1, line="ema"), grpc.StatusCode.NOT_FOUND),
    ],
)
async def test_an_impossible_fetch_is_refused(
    publisher: Publisher,
    weights: "weights_pb2_grpc.WeightServiceAsyncStub",
    request_: weights_pb2.FetchRequest,
    code: grpc.StatusCode,
) -> None:
    await publisher.publish(_wide_weights(), 1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _collect(weights.Fetch(request_, timeout=10))
    assert caught.value.code() is code


async def test_a_long_poll_returns_as_soon_as_there_is_a_newer_version(
    publisher: Publisher, weights: "weights_pb2_grpc.WeightServiceAsyncStub"
) -> None:
    await publisher.publish(_wide_weights(), 1)
    request = weights_pb2.GetManifestRequest(have_version=1, wait_seconds=30)
    async with asyncio.TaskGroup() as group:
        call = group.create_task(_ask(weights, request), name="long poll")
        await asyncio.sleep(0.1)
        assert not call.done()
        await publisher.publish(_wide_weights(1), 2)
        async with asyncio.timeout(5):
            manifest = (await call).manifest
    assert (manifest.version, manifest.parent) == (2, 1)


async def _ask(
    weights: "weights_pb2_grpc.WeightServiceAsyncStub", request: weights_pb2.GetManifestRequest
) -> weights_pb2.GetManifestResponse:
    return await weights.GetManifest(request, timeout=40)


async def test_a_long_poll_ends_before_its_deadline_with_what_is_newest(
    publisher: Publisher, weights: "weights_pb2_grpc.WeightServiceAsyncStub"
) -> None:
    request = weights_pb2.GetManifestRequest(wait_seconds=30)
    with pytest.raises(grpc.aio.AioRpcError, match="no version was published within") as caught:
        await weights.GetManifest(request, timeout=0.6)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await publisher.publish(_wide_weights(), 7)
    request = weights_pb2.GetManifestRequest(have_version=7, wait_seconds=30)
    assert (await weights.GetManifest(request, timeout=0.6)).manifest.version == 7


async def test_progress_and_checkpoints_over_the_wire(channel: grpc.aio.Channel, learner: Status) -> None:
    stub = learner_pb2_grpc.LearnerServiceStub(channel)
    learner.phase, learner.step, learner.newest = Phase.COLLECTING, 3, {"score_mean": 0.5}
    progress = await stub.GetProgress(learner_pb2.GetProgressRequest(), timeout=5)
    assert (progress.phase, progress.step, dict(progress.metrics)) == ("collecting", 3, {"score_mean": 0.5})
    saved = await stub.Checkpoint(learner_pb2.CheckpointRequest(), timeout=5)
    assert (saved.step, saved.version) == (3, 4)
    learner.phase = Phase.WAITING
    with pytest.raises(grpc.aio.AioRpcError, match="No space left") as caught:
        await stub.Checkpoint(learner_pb2.CheckpointRequest(), timeout=5)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
