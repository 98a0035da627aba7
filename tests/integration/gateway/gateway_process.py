"""A gateway as a process of its own, whose whole output and metrics can be read afterwards."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from onlinerlhf.runtime.config import RunConfig
from redis_servers import free_port

UNLIMITED: dict[str, Any] = {"playground_limits": {}, "user_limits": {}, "organisation_limits": {}}
START_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayProcess:
    """It runs, and answers."""

    target: str
    http: str
    metrics: str
    log: Path
    process: asyncio.subprocess.Process

    def output(self) -> str:
        """All that it has written so far, to stdout and stderr."""
        return self.log.read_text(errors="surrogateescape")

    async def exposition(self) -> str:
        """Its metrics."""
        async with httpx.AsyncClient(timeout=10) as http:
            return (await http.get(self.metrics)).text


@asynccontextmanager
async def gateway_process(
    directory: Path, run: RunConfig, *, model_dir: Path, rollout_target: str, **settings: Any
) -> AsyncIterator[GatewayProcess]:
    """`python -m onlinerlhf.gateway`, logging at DEBUG. It must still run at the end, and then stop by itself."""
    target, http, metrics_port = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", free_port()
    section = {
        "model_dir": model_dir,
        "rollout_target": rollout_target,
        "listen": target,
        "http_listen": http,
        "metrics_port": metrics_port,
        "drain_seconds": 5,
        "feed_poll_seconds": 0.05,
        "valid_share": 0.0,
        "test_share": 0.0,
        **settings,
    }
    words = {name: json.dumps(each) if isinstance(each, dict | list) else str(each) for name, each in section.items()}
    environment = {
        **os.environ,
        "TOKENIZERS_PARALLELISM": "false",
        "ONLINERLHF_RUN__ID": run.id,
        "ONLINERLHF_RUN__REDIS_URL": run.redis_url.get_secret_value(),
        "ONLINERLHF_RUN__LOG_LEVEL": "DEBUG",
        **{f"ONLINERLHF_GATEWAY__{name.upper()}": word for name, word in words.items()},
    }
    log = directory / "gateway.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "onlinerlhf.gateway", env=environment, stdout=output, stderr=output
        )
    try:
        await _serving(target, process, log)
        metrics = f"http://127.0.0.1:{metrics_port}/metrics"
        yield GatewayProcess(target=target, http=http, metrics=metrics, log=log, process=process)
        assert process.returncode is None, log.read_text()[-3000:]
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 30) == 0, log.read_text()[-3000:]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _serving(target: str, process: asyncio.subprocess.Process, log: Path) -> None:
    request = health_pb2.HealthCheckRequest()
    async with asyncio.timeout(START_SECONDS), grpc.aio.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            assert process.returncode is None, f"see {log}"
            try:
                reply = await stub.Check(request, wait_for_ready=True, timeout=1)
            except grpc.aio.AioRpcError:
                continue
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                return
            await asyncio.sleep(0.05)
