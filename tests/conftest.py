"""Fixtures for all suites: real Redis servers, and a run of its own for each test.

A test that asks for `client` gets the embedded server. One that must hold on every server says so:

    pytestmark = pytest.mark.parametrize("redis_binary", redis_binaries(), indirect=True)
"""

import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from onlinerlhf.runtime import redis
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.keys import RunKeys
from redis_servers import RedisServer, redis_binaries

# As `onlinerlhf` sets it; must be there before torch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


@pytest.fixture(scope="session", params=redis_binaries()[:1])
def redis_binary(request: pytest.FixtureRequest) -> str:
    """Path of the redis-server to test on."""
    return str(request.param)


@pytest.fixture(scope="session")
def redis_server(redis_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for the session. Not to be killed: see new_redis_server."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), binary=redis_binary)
    server.start("--appendfsync", "no")
    yield server
    server.kill()


@pytest.fixture
def new_redis_server(redis_binary: str, tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Makes a server for this test alone, with the append-only file as in production."""
    servers: list[RedisServer] = []

    def make(*options: str) -> RedisServer:
        directory = tmp_path / f"redis-{len(servers)}"
        directory.mkdir()
        server = RedisServer(directory, binary=redis_binary)
        servers.append(server)
        server.start(*options)
        return server

    yield make
    for server in servers:
        server.kill()


@pytest.fixture
def run_config(redis_server: RedisServer) -> RunConfig:
    """A run that no other test has."""
    return RunConfig(id=f"test-{uuid.uuid4().hex[:12]}", redis_url=SecretStr(redis_server.url))


@pytest.fixture
def keys(run_config: RunConfig) -> RunKeys:
    """The run's keys."""
    return RunKeys(run_config.id)


@pytest.fixture
async def client(run_config: RunConfig) -> AsyncIterator[Redis]:
    """A client of the session's server."""
    connection = redis.connect(run_config)
    yield connection
    await connection.aclose()


@pytest.fixture
def health() -> Health:
    """A room's health."""
    return Health("test")


@pytest.fixture
def patience(health: Health) -> redis.Patience:
    """Reports to `health`."""
    return redis.Patience(health)
