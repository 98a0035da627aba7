"""Processes that a benchmark measures: started, waited for, and ended with the block."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import SecretStr
from redis.asyncio import Redis

from onlinerlhf.core.errors import StartupError, WaitTimeout
from onlinerlhf.runtime import redis
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.embedded_redis import redis_server_command
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.keys import RunKeys

START_SECONDS = 60.0
RUN_ID = "benchmark"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A process that listens on a port of loopback."""

    process: psutil.Process
    port: int

    @property
    def target(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    def cpu_seconds(self) -> float:
        """Of all its threads so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A Redis with its append-only file on, as `onlinerlhf up` starts it."""

    server: Server
    run: RunConfig
    client: Redis
    keys: RunKeys

    async def used_bytes(self) -> int:
        """Of memory."""
        info = await redis.command(self.client, "INFO", "memory")
        return int(info["used_memory"])


def free_port() -> int:
    """Of loopback; nobody listens on it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def store(directory: Path) -> AsyncIterator[Store]:
    """Runs a Redis whose files are in `directory`."""
    directory.mkdir(parents=True)  # noqa: ASYNC240 - nothing else runs yet
    port = free_port()
    run = RunConfig(id=RUN_ID, redis_url=SecretStr(f"redis://127.0.0.1:{port}/0"))
    client = redis.connect(run)
    async with server(redis_server_command(directory, port), port, log=directory / "redis.log") as started:
        try:
            await redis.Patience(Health("benchmark"))("the server", client.ping, give_up_seconds=START_SECONDS)
            yield Store(server=started, run=run, client=client, keys=RunKeys(run.id))
        finally:
            await client.aclose()


@asynccontextmanager
async def gateway(directory: Path, store: Store, settings: Mapping[str, object]) -> AsyncIterator[Server]:
    """`python -m onlinerlhf.gateway` with settings of section [gateway]."""
    port = free_port()
    section = {"listen": f"127.0.0.1:{port}", "http_listen": "none", **settings}
    environment = {
        **os.environ,
        "TOKENIZERS_PARALLELISM": "false",
        "ONLINERLHF_RUN__ID": store.run.id,
        "ONLINERLHF_RUN__REDIS_URL": store.run.redis_url.get_secret_value(),
        **{f"ONLINERLHF_GATEWAY__{name.upper()}": _word(value) for name, value in section.items()},
    }
    command = [sys.executable, "-m", "onlinerlhf.gateway"]
    async with server(command, port, log=directory / "gateway.log", environment=environment) as started:
        yield started


@asynccontextmanager
async def echo(directory: Path, kind: str) -> AsyncIterator[Server]:
    """`kind`: grpc or http."""
    port = free_port()
    command = [sys.executable, str(Path(__file__).parent / "gateway_echo.py"), kind, str(port)]
    async with server(command, port, log=directory / f"echo_{kind}.log") as started:
        yield started


@asynccontextmanager
async def server(
    command: Sequence[str], port: int, *, log: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Server]:
    """A process that is there once its port is."""
    with log.open("ab") as output:
        started = await asyncio.create_subprocess_exec(*command, env=environment, stdout=output, stderr=output)
    try:
        await _listening(started, port, log)
        yield Server(process=psutil.Process(started.pid), port=port)
    finally:
        if started.returncode is None:
            started.terminate()
        try:
            await asyncio.wait_for(started.wait(), START_SECONDS)
        except TimeoutError:
            started.kill()
            await started.wait()


async def _listening(started: asyncio.subprocess.Process, port: int, log: Path) -> None:
    for _ in range(round(START_SECONDS / 0.05)):
        if started.returncode is not None:
            raise StartupError(f"{log.stem} ended at once; see {log}")
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise WaitTimeout(f"nothing listens on port {port} after {START_SECONDS:.0f} s; see {log}")


def _word(value: object) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
