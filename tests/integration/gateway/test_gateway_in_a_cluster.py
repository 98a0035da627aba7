"""A whole gateway as a cluster runs it: TLS on either side, probed in plaintext, and with Redis away."""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr

from authority import Authority, SecretMount
from integration.gateway.conftest import FakeRollout
from integration.gateway.http_front import CHAT, HELLO
from integration.serving.support import running
from onlinerlhf.gateway.access.callers import KeyClass, Scope
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.v1 import rollout_pb2_grpc
from onlinerlhf_client import Tls
from redis_servers import RedisServer, redis_binaries

if TYPE_CHECKING:
    from integration.gateway.conftest import MakeKey, StartGateway


async def _is_serving(address: str, name: str) -> bool:
    async with grpc.aio.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=name)
        answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def test_users_come_by_tls_with_their_keys_and_workers_are_called_with_certificates(
    start_gateway: "StartGateway", rollout: FakeRollout, unused_port: Callable[[], int], tmp_path: Path
) -> None:
    mount, probes = SecretMount(tmp_path / "tls"), f"127.0.0.1:{unused_port()}"
    mount.renew(Authority())
    files: dict[str, Any] = {"tls_cert": mount.cert, "tls_key": mount.key, "tls_ca": mount.ca}

    def register(server: grpc.aio.Server) -> Sequence[str]:
        rollout_pb2_grpc.add_RolloutServiceServicer_to_server(rollout, server)
        return []

    async with running(register=register, **files) as worker:
        gateway = await start_gateway(rollout_target=worker.address, health_listen=probes, **files)
        async with gateway.client(tls=Tls(ca=mount.ca)) as client:
            assert (await client.answer("zero", user_id="ada")).text == "Hi"
        context = ssl.create_default_context(cadata=mount.ca.read_text())
        headers = {"Authorization": f"Bearer {gateway.api_key}"}
        async with httpx.AsyncClient(base_url=f"https://{gateway.http}", verify=context, headers=headers) as http:
            answer = await http.post(CHAT, json=HELLO)
        assert (answer.status_code, answer.json()["choices"][0]["message"]["content"]) == (200, "Hi")
        assert await _is_serving(probes, "users") and await _is_serving(probes, "liveness")
    assert len(rollout.requests) == 2


async def test_without_redis_it_stays_in_its_service_and_answers_production_users(
    start_gateway: "StartGateway", make_key: "MakeKey", unused_port: Callable[[], int], tmp_path: Path
) -> None:
    [binary] = redis_binaries()[0].values
    assert isinstance(binary, str)
    server, probes = RedisServer(tmp_path, binary=binary), f"127.0.0.1:{unused_port()}"
    server.start()
    try:
        run = RunConfig(id="cluster", redis_url=SecretStr(server.url))
        gateway = await start_gateway(run=run, health_listen=probes)
        key = await make_key(Scope.GENERATE, key_class=KeyClass.PRODUCTION, run=run)
        async with gateway.client(key) as client, httpx.AsyncClient(base_url=f"http://{gateway.http}") as http:
            assert (await client.answer("zero", user_id="eve")).text == "Hi"
            server.kill()
            async with asyncio.timeout(10):
                while await _is_serving(probes, ""):  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.05)
            assert await _is_serving(probes, "users") and await _is_serving(probes, "liveness")
            assert (await http.get("/healthz")).status_code == 200
            assert (await client.answer("one", user_id="eve")).text == "Hi"
    finally:
        server.kill()


async def test_a_gateway_that_has_not_reached_redis_yet_is_alive_and_not_ready_for_users(
    start_gateway: "StartGateway", unused_port: Callable[[], int]
) -> None:
    probes = f"127.0.0.1:{unused_port()}"
    nowhere = RunConfig(id="cluster", redis_url=SecretStr(f"redis://127.0.0.1:{unused_port()}/0"))
    starting = asyncio.ensure_future(start_gateway(run=nowhere, health_listen=probes, api_key="none"))
    async with asyncio.timeout(10), grpc.aio.insecure_channel(probes) as channel:
        await channel.channel_ready()
    assert await _is_serving(probes, "liveness")
    assert not await _is_serving(probes, "users")
    starting.cancel()
