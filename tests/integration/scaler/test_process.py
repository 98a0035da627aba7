"""The scaler as a process: real Redis, real gRPC to a worker, the fake API server."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from redis.asyncio import Redis

from integration.streams.support import Admit
from kube.cluster import Cluster, eventually
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.cordon import EMPTYING
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.scaler.kinds import LEASE
from onlinerlhf.v1 import rollout_pb2


async def says(
    _: rollout_pb2.GetRolloutStatusRequest, context: "grpc.aio.ServicerContext[Any, Any]"
) -> rollout_pb2.GetRolloutStatusResponse:
    """A worker with nothing in hand, and ready to go."""
    return rollout_pb2.GetRolloutStatusResponse(version=3, reason=EMPTYING)


@pytest.fixture
async def rollout_port() -> AsyncIterator[int]:
    """Where all the pods' workers answer: their address is that of this machine."""
    service = rollout_pb2.DESCRIPTOR.services_by_name["RolloutService"].full_name
    handler = grpc.unary_unary_rpc_method_handler(
        says,
        request_deserializer=rollout_pb2.GetRolloutStatusRequest.FromString,
        response_serializer=rollout_pb2.GetRolloutStatusResponse.SerializeToString,
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"GetStatus": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(None)


def environment(cluster: Cluster, run: RunConfig, port: int) -> dict[str, str]:
    """Settings of the process, fast enough for a test."""
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith("ONLINERLHF_")},
        "ONLINERLHF_RUN__ID": run.id,
        "ONLINERLHF_RUN__REDIS_URL": run.redis_url.get_secret_value(),
        "ONLINERLHF_SCALER__KUBECONFIG": str(cluster.kubeconfig),
        "ONLINERLHF_SCALER__NAMESPACE": cluster.namespace,
        "ONLINERLHF_SCALER__ROLLOUT_PORT": str(port),
        "ONLINERLHF_SCALER__POLL_SECONDS": "0.3",
        "ONLINERLHF_SCALER__LEASE_SECONDS": "2",
        "ONLINERLHF_SCALER__RENEW_SECONDS": "1.5",
        "ONLINERLHF_SCALER__RETRY_SECONDS": "0.2",
    }


@asynccontextmanager
async def scaler(variables: dict[str, str], log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m onlinerlhf.scaler` for the length of the block."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "onlinerlhf.scaler", env=variables, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_backlog_in_redis_scales_the_pool_up_and_its_end_scales_it_down(
    faulty: Cluster,
    run_config: RunConfig,
    client: Redis,
    keys: RunKeys,
    admit: Admit,
    rollout_port: int,
    tmp_path: Path,
) -> None:
    await faulty.deploy()
    await faulty.pool(maxReplicas=3, samplesPerReplica=2)
    log = tmp_path / "scaler.log"
    async with scaler(environment(faulty, run_config, rollout_port), log) as process:
        await admit(*(f"s-{number}" for number in range(40)))
        await eventually("three replicas", lambda: _asks_for(faulty, 3), seconds=40)
        await eventually("the workers' version is known", lambda: _serves(faulty, 3))
        assert (await faulty.status())["backlog"] == 40
        await client.delete(*[key async for key in client.scan_iter(match=f"*{{{keys.run}}}*")])
        await eventually("one replica again", lambda: _asks_for(faulty, 1), seconds=20)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0, log.read_text()[-2000:]
    # Let go, so that another would not wait.
    assert await faulty.holder() == ""
    assert "released the lease" in log.read_text()


async def test_a_scaler_whose_lease_is_taken_ends_with_an_error(
    faulty: Cluster, run_config: RunConfig, rollout_port: int, tmp_path: Path
) -> None:
    log = tmp_path / "scaler.log"
    async with scaler(environment(faulty, run_config, rollout_port), log) as process:
        await eventually("it leads", lambda: _is_held(faulty), seconds=40)
        await faulty.kube.patch(LEASE, "onlinerlhf-scaler", {"spec": {"holderIdentity": "thief"}})
        assert await asyncio.wait_for(process.wait(), 10) == 1
    assert "onlinerlhf scaler: lost the lease onlinerlhf-scaler: thief holds it" in log.read_text()


async def test_a_scaler_outside_of_any_cluster_says_what_it_lacks(tmp_path: Path) -> None:
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("ONLINERLHF_", "KUBERNETES_"))}
    log = tmp_path / "scaler.log"
    async with scaler(variables, log) as process:
        assert await asyncio.wait_for(process.wait(), 30) == 1
    assert "no access to a Kubernetes cluster" in log.read_text()


async def _asks_for(cluster: Cluster, replicas: int) -> bool:
    return await cluster.replicas() == replicas


async def _serves(cluster: Cluster, version: int) -> bool:
    return (await cluster.status()).get("policyVersion") == version


async def _is_held(cluster: Cluster) -> bool:
    return await cluster.holder() != ""
