"""The connection to Redis, scripts, and the patience to wait while Redis is away."""

import asyncio
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from onlinerlhf.core.errors import ConfigError, StartupError, Unavailable
from onlinerlhf.runtime import metrics
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.health import Health

log = logging.getLogger(__name__)

T = TypeVar("T")
Argument: TypeAlias = str | bytes | int | float

SOCKET_TIMEOUT_SECONDS: Final = 5.0
"""Of one command. Blocking reads wait for far less."""
MAX_CONNECTIONS: Final = 64
MAX_BACKOFF_SECONDS: Final = 2.0

# Replies by which a server that is there says that it cannot work now: the client knows some by class, and some only
# by their words, above all those that a script has wrapped in a message of its own.
_AWAY_ERRORS: Final[dict[type[RedisError], str]] = {
    BusyLoadingError: "Redis is loading its data",
    OutOfMemoryError: "Redis is out of memory (maxmemory)",
    ReadOnlyError: "Redis is a read-only replica",
    MasterDownError: "Redis has lost its master",
    ClusterDownError: "the Redis cluster is down",
    TryAgainError: "the Redis cluster is moving this slot",
}
_AWAY_WORDS: Final = {
    "command not allowed when used memory": "Redis is out of memory (maxmemory)",
    "LOADING": "Redis is loading its data",
    "MISCONF": "Redis cannot write its files",
    "READONLY": "Redis is a read-only replica",
    "BUSY Redis is busy": "Redis is busy with a script",
}


def connect(run: RunConfig) -> Redis:
    """A client that answers in bytes. It connects at its first command, and each command fails within seconds."""
    try:
        pool = BlockingConnectionPool.from_url(
            run.redis_url.get_secret_value(),
            max_connections=MAX_CONNECTIONS,
            timeout=SOCKET_TIMEOUT_SECONDS,
            socket_timeout=SOCKET_TIMEOUT_SECONDS,
            socket_connect_timeout=SOCKET_TIMEOUT_SECONDS / 2,
            protocol=2,
            # Patience retries, so that health can tell; a second layer would only hide it.
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError:
        raise ConfigError("[run] redis_url is not a Redis URL like redis://host:6379/0") from None
    return Redis.from_pool(pool)


async def command(redis: Redis, *arguments: Argument) -> Any:
    """One command, as Redis spells it."""
    return await redis.execute_command(*arguments)  # type: ignore[no-untyped-call]


def away_reason(error: BaseException) -> str | None:
    """Why Redis cannot answer now, or None where trying again would not help."""
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return None
    for kind, reason in _AWAY_ERRORS.items():
        if isinstance(error, kind):
            return reason
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return "Redis does not answer"
    if isinstance(error, RedisConnectionError | OSError):
        return "Redis cannot be reached"
    if isinstance(error, RedisError):
        return next((reason for words, reason in _AWAY_WORDS.items() if words in str(error)), None)
    return None


class Script:
    """A Lua script: one atomic step. Loaded when a server does not know it (any more)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], arguments: Iterable[Argument] = ()) -> tuple[Argument, ...]:
        """How Redis is asked to run it, where it knows it already."""
        return ("EVALSHA", self._sha, len(keys), *keys, *arguments)

    async def run(self, redis: Redis, keys: Sequence[str], arguments: Iterable[Argument] = ()) -> Any:
        """Run with all keys declared."""
        try:
            return await command(redis, *self.command(keys, arguments))
        except NoScriptError:
            return await command(redis, "EVAL", self.text, len(keys), *keys, *arguments)


class Patience:
    """Repeats a call while Redis is away, loading or full, and tells health why. Only for calls safe to repeat."""

    def __init__(self, health: Health, *, component: str = "redis") -> None:
        self._health = health
        self._component = component
        self._waiting: dict[object, str] = {}
        """Calls being repeated now. A read that works must not hide that writes are refused."""
        self._answered = False
        """Whether any call has worked since one last failed."""

    async def __call__(self, what: str, call: Callable[[], Awaitable[T]], *, give_up_seconds: float | None = None) -> T:
        """The call's result. Raises Unavailable after give_up_seconds; without that, waits until Redis is back."""
        loop = asyncio.get_running_loop()
        started, backoff_seconds, token = loop.time(), 0.05, object()
        try:
            while True:
                try:
                    result = await call()
                except (RedisError, OSError) as error:
                    reason = self._reason(error)
                    metrics.REDIS_RETRIES.inc()
                    self._waiting[token] = reason
                    self._answered = False
                    self._health.set(self._component, ok=False, reason=reason)
                    waited = loop.time() - started
                    if give_up_seconds is not None and waited + backoff_seconds > give_up_seconds:
                        raise Unavailable(f"{what}: {reason}, for {waited:.1f} s") from None
                    await asyncio.sleep(backoff_seconds * random.uniform(0.7, 1.0))
                    backoff_seconds = min(2 * backoff_seconds, MAX_BACKOFF_SECONDS)
                else:
                    self._answered = True
                    return result
        finally:
            self._waiting.pop(token, None)
            if self._answered and not self._waiting:
                self._health.set(self._component, ok=True)

    def _reason(self, error: RedisError | OSError) -> str:
        if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
            raise StartupError(f"Redis refuses these credentials ({type(error).__name__})") from error
        reason = away_reason(error)
        if reason is None:
            raise error
        return reason
