"""What a kubelet asks: a plaintext port that serves health alone, from before the room's own server until after it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from authority import Authority, SecretMount
from integration.serving.support import running, terminate
from onlinerlhf.core.errors import StartupError
from onlinerlhf.runtime import listening, serving
from onlinerlhf.runtime.config import ServiceConfig
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.serving import run_service
from onlinerlhf.v1 import diagnostics_pb2, diagnostics_pb2_grpc, gateway_pb2, gateway_pb2_grpc
from redis_servers import free_port

NAMES = ("", "onlinerlhf.v1.GatewayService", "users", "liveness")


@pytest.fixture
def probes() -> str:
    return f"127.0.0.1:{free_port()}"


async def _ask(address: str, service: str) -> str:
    """As a kubelet does: a new connection each time, and the status' name or the code of the failure."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=2)
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


async def _said(address: str) -> list[bool]:
    """Which of NAMES are serving."""
    return [await _ask(address, name) == "SERVING" for name in NAMES]


async def test_each_name_says_what_its_probe_is_for(probes: str) -> None:
    async with running(health_listen=probes) as service:
        assert await _said(probes) == [True, True, True, True]
        service.health.set("redis", ok=False, reason="Redis cannot be reached")
        assert await _said(probes) == [False, False, True, True]
        service.health.set("engine", ok=False, reason="vLLM is starting")
        assert await _said(probes) == [False, False, False, True]
        service.health.set("redis", ok=True)
        service.health.set("engine", ok=True)
        service.health.stall("no turn for 60 s")
        assert await _said(probes) == [True, True, True, False]
        service.health.stall(None)
        assert await _said(probes) == await _said(service.address) == [True, True, True, True]
        assert await _ask(probes, "onlinerlhf.v1.Elsewhere") == "NOT_FOUND"


async def test_a_drain_is_unready_and_alive_until_its_end(probes: str) -> None:
    async def work(stop: asyncio.Event) -> None:
        await stop.wait()
        await service.servicer.release.wait()

    async with running(health_listen=probes, background={"work": work}) as service:
        terminate()
        await asyncio.sleep(0.1)
        assert await _said(probes) == [False, False, False, True]
        service.servicer.release.set()
        await asyncio.wait_for(service.task, 5)
        assert await _ask(probes, "liveness") == "UNAVAILABLE"


async def test_watchers_hear_of_each_change_and_one_that_leaves_takes_nothing_from_the_others(probes: str) -> None:
    async with running(health_listen=probes) as service, grpc.aio.insecure_channel(probes) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest(service="users"), timeout=10) for _ in range(2)]
        unknown = stub.Watch(health_pb2.HealthCheckRequest(service="else"), timeout=10)
        assert [(await each.read()).status for each in (*watches, unknown)] == [1, 1, 3]
        watches[0].cancel()
        await asyncio.sleep(0.1)
        service.health.set("engine", ok=False, reason="gone")
        async with asyncio.timeout(5):
            assert (await watches[1].read()).status == 2
            service.health.set("engine", ok=True)
            assert (await watches[1].read()).status == 1
        watches[1].cancel()
        unknown.cancel()


async def test_with_tls_the_port_is_plaintext_and_nothing_but_health_is_on_it(
    probes: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    authority, mount = Authority(), SecretMount(tmp_path_factory.mktemp("tls"))
    mount.renew(authority)
    async with running(health_listen=probes, tls_cert=mount.cert, tls_key=mount.key, tls_ca=mount.ca) as service:
        assert await _said(probes) == [True, True, True, True]
        assert await _ask(service.address, "liveness") == "UNAVAILABLE"
        async with grpc.aio.insecure_channel(probes) as channel:
            gateway = gateway_pb2_grpc.GatewayServiceStub(channel)
            diagnostics = diagnostics_pb2_grpc.DiagnosticsServiceStub(channel)
            reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
            question = reflection_pb2.ServerReflectionRequest(list_services="")
            for call in (
                gateway.SubmitPrompt(gateway_pb2.SubmitPromptRequest(), timeout=5),
                diagnostics.GetComponents(diagnostics_pb2.GetComponentsRequest(), timeout=5),
                reflection.ServerReflectionInfo(iter([question]), timeout=5).read(),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert await _ask(probes, "x" * 2_000) == "RESOURCE_EXHAUSTED"


async def test_before_the_rooms_own_server_is_up_it_is_alive_and_not_ready(
    probes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[list[bool]] = []

    room_server = listening.room_server

    @asynccontextmanager
    async def look_first(*args: Any) -> AsyncIterator[grpc.aio.Server]:
        said.append(await _said(probes))
        async with room_server(*args) as server:
            yield server

    monkeypatch.setattr(serving, "room_server", look_first)
    async with running(health_listen=probes):
        assert said == [[False, False, False, True]]
        assert await _said(probes) == [True, True, True, True]


async def test_a_taken_health_port_is_a_startup_error_that_names_it(probes: str) -> None:
    async with running(health_listen=probes):
        config = ServiceConfig(health_listen=probes)
        with pytest.raises(StartupError, match=f"cannot listen on {probes}"):
            await run_service("other", config, health=Health("other"), register=lambda server: [])
