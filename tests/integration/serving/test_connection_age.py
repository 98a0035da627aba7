"""Connections that age: clients find new replicas within seconds, and nothing that is under way is lost by it."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from safetensors.torch import load_file

from integration.serving.names import Names, name_server
from integration.serving.support import running, terminate
from onlinerlhf.core.weights import Line
from onlinerlhf.learner.lines import WeightLines
from onlinerlhf.learner.publisher import Publisher
from onlinerlhf.learner.versions import VersionStore
from onlinerlhf.learner.weight_service import WeightServicer
from onlinerlhf.rollout.learner_source import LearnerSource
from onlinerlhf.rollout.staging import Staging
from onlinerlhf.runtime.channels import open_channel
from onlinerlhf.v1 import gateway_pb2, gateway_pb2_grpc, weights_pb2, weights_pb2_grpc
from redis_servers import free_port

REQUEST = gateway_pb2.SubmitPromptRequest()
HANG = gateway_pb2.GenerateRequest(user_id="hang")


async def _seen_after(names: Names, channel: grpc.aio.Channel, port: int, age_seconds: float | None) -> float | None:
    """Seconds until a call comes to a second replica, of two of this age. None: not within 3."""
    stub = gateway_pb2_grpc.GatewayServiceStub(channel)
    async with running(address=f"127.0.0.2:{port}", **_age(age_seconds)) as second:
        names.addresses.append("127.0.0.2")
        started = time.monotonic()
        while time.monotonic() < started + 3:
            await stub.SubmitPrompt(REQUEST, timeout=5)
            if second.servicer.started.is_set():
                return time.monotonic() - started
            await asyncio.sleep(0.01)
    return None


def _age(seconds: float | None, *, grace_seconds: float = 5.0) -> dict[str, Any]:
    if seconds is None:
        return {}
    return {"max_connection_age_seconds": seconds, "max_connection_age_grace_seconds": grace_seconds}


@pytest.mark.parametrize(("age_seconds", "is_seen"), [(0.5, True), (None, False)])
async def test_a_second_replica_gets_calls_within_seconds_where_connections_age_and_else_none(
    age_seconds: float | None, is_seen: bool
) -> None:
    port = free_port()
    async with (
        name_server("127.0.0.1") as names,
        running(address=f"127.0.0.1:{port}", **_age(age_seconds)),
        open_channel(names.target(port)) as channel,
    ):
        await gateway_pb2_grpc.GatewayServiceStub(channel).SubmitPrompt(REQUEST, timeout=5)
        seconds = await _seen_after(names, channel, port, age_seconds)
        assert (seconds is not None) == is_seen


async def test_no_call_fails_while_connections_age_under_load_and_replicas_come_and_go() -> None:
    port, num_calls = free_port(), 0
    age = _age(0.3, grace_seconds=2.0)
    over = asyncio.Event()

    async def ask(stub: Any) -> None:
        nonlocal num_calls
        while not over.is_set():
            await stub.SubmitPrompt(REQUEST, timeout=5)
            num_calls += 1

    async with (
        name_server("127.0.0.1") as names,
        running(address=f"127.0.0.1:{port}", **age),
        open_channel(names.target(port), healthy_service="users") as channel,
        asyncio.TaskGroup() as group,
    ):
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        for number in range(8):
            group.create_task(ask(stub), name=f"asker {number}")
        async with running(address=f"127.0.0.2:{port}", **age) as second:
            names.addresses.append("127.0.0.2")
            await asyncio.wait_for(second.servicer.started.wait(), 5)
            await asyncio.sleep(0.5)
            names.addresses.remove("127.0.0.2")
            terminate()
            await asyncio.wait_for(second.task, 5)
        await asyncio.sleep(0.5)
        over.set()
    assert num_calls > 100


async def test_an_answer_that_streams_for_longer_than_its_connections_age_is_not_cut_within_the_grace() -> None:
    age = _age(0.2, grace_seconds=5.0)
    async with running(**age) as service, open_channel(service.address) as channel:
        call = gateway_pb2_grpc.GatewayServiceStub(channel).Generate(HANG, timeout=10)
        await call.read()
        await asyncio.sleep(1.0)
        service.servicer.release.set()
        assert await call.read() == gateway_pb2.GenerateResponse(token=gateway_pb2.Token(text="two"))
        assert await call.read() is grpc.aio.EOF


async def test_beyond_the_grace_it_is_cut_and_the_caller_hears_that_it_may_try_again() -> None:
    age = _age(0.2, grace_seconds=0.2)
    async with running(**age) as service, open_channel(service.address) as channel:
        call = gateway_pb2_grpc.GatewayServiceStub(channel).Generate(HANG, timeout=10)
        await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


class PacedWeights(WeightServicer):
    """The learner's own service on a slow line; remembers how it was asked."""

    def __init__(self, lines: WeightLines) -> None:
        super().__init__(lines)
        self.asked: list[tuple[str, int]] = []

    async def Fetch(self, request: weights_pb2.FetchRequest, context: Any) -> AsyncIterator[weights_pb2.Chunk]:
        self.asked.append((request.tensors[0], request.offset))
        async for chunk in super().Fetch(request, context):
            await asyncio.sleep(0.1)
            yield chunk


async def test_a_weight_stream_longer_than_age_and_grace_arrives_whole_by_resuming_at_its_offset(
    tmp_path: Path,
) -> None:
    tensors = {name: torch.randn(3 << 20, generator=torch.Generator().manual_seed(1)) for name in ("a", "b")}
    publisher = Publisher(VersionStore(tmp_path / "versions", keep=2))
    await publisher.load()
    await publisher.publish(lambda: tensors, 1)
    servicer = PacedWeights(WeightLines({Line.POLICY: publisher}))

    def register(server: grpc.aio.Server) -> list[str]:
        weights_pb2_grpc.add_WeightServiceServicer_to_server(servicer, server)
        return []

    age = _age(0.5, grace_seconds=0.2)
    async with running(register=register, **age) as service, open_channel(service.address) as channel:
        source = LearnerSource(channel, fetch_timeout_seconds=30)
        staging = Staging(source, tmp_path / "staging", expected_shapes={"a": (3 << 20,), "b": (3 << 20,)})
        staging.clear()
        async with asyncio.timeout(20):
            manifest = await source.manifest(have_version=0, wait_seconds=1, full=True)
            staged = await staging.stage(manifest)
    arrived = load_file(staged.path)
    assert all(torch.equal(arrived[name], tensors[name]) for name in tensors)
    # 24 chunks of a MiB, ten a second: 2.4 s over connections of at most 0.75 s.
    assert len(servicer.asked) >= 3 and servicer.asked[0] == ("a", 0)
    assert any(offset > 0 for _, offset in servicer.asked)
