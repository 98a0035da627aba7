"""Which Redis and run a command is about: those of the platform that is up, or the ones that were named."""

import asyncio
import os
import tomllib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from pydantic import SecretStr, ValidationError
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError

from onlinerlhf.core.errors import ConfigError, StartupError, Unavailable
from onlinerlhf.local import endpoints
from onlinerlhf.runtime import redis
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.keys import RunKeys

T = TypeVar("T")

ANSWER_SECONDS: Final = 10.0
HASH_KEY_VARIABLE: Final = "ONLINERLHF_GATEWAY__HASH_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a run's keys are."""

    run_id: str
    redis_url: str = field(repr=False)
    """It may hold a password."""
    hash_key: bytes | None = field(default=None, repr=False)
    """The gateways' setting, where they have one."""


def find(home: Path, run_dir: Path | None, *, redis_url: str | None = None, run: str | None = None) -> Target:
    """The named Redis, or the one of the platform that is up."""
    if redis_url is not None:
        return Target(run_id=run or "local", redis_url=redis_url, hash_key=_hash_key(None))
    if run is not None:
        raise ConfigError("--run names a run in the Redis of --redis-url; --run-dir names a platform on this machine")
    found = endpoints.find(home, run_dir)
    return Target(run_id=found.run_id, redis_url=found.redis_url, hash_key=_hash_key(Path(found.run_dir)))


def ask(target: Target, job: Callable[[Redis, RunKeys], Awaitable[T]]) -> T:
    """Run a job on a connection of its own. What Redis cannot do is one line."""
    return asyncio.run(connected(target, job))


async def connected(target: Target, job: Callable[[Redis, RunKeys], Awaitable[T]]) -> T:
    """The same within a running loop."""
    try:
        config = RunConfig(id=target.run_id, redis_url=SecretStr(target.redis_url))
    except ValidationError:
        raise ConfigError(f"a run's name is 1 to 64 of A-Z a-z 0-9 _ . -, not {target.run_id!r}") from None
    client = redis.connect(config)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await job(client, RunKeys(config.id))
    except (AuthenticationError, AuthorizationError, NoPermissionError):
        raise StartupError("Redis refuses these credentials") from None
    except (RedisError, OSError) as error:
        reason = redis.away_reason(error)
        if reason is None:
            raise
        raise Unavailable(f"{reason}; nothing is known to have changed") from None
    finally:
        await client.aclose()


def _hash_key(run_dir: Path | None) -> bytes | None:
    """As the gateway reads it: the environment goes over the file."""
    if value := os.environ.get(HASH_KEY_VARIABLE):
        return None if value == "none" else value.encode()
    if run_dir is None:
        return None
    try:
        gateway = tomllib.loads((run_dir / "platform.toml").read_text()).get("gateway", {})
    except FileNotFoundError:
        return None
    value = gateway.get("hash_key")
    return value.encode() if isinstance(value, str) and value != "none" else None
