"""Waiting while Redis is away, on a call that only pretends."""

import asyncio

import pytest
from pydantic import SecretStr
from redis.exceptions import AuthenticationError, BusyLoadingError, OutOfMemoryError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from onlinerlhf.core.errors import ConfigError, Unavailable
from onlinerlhf.runtime import redis
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.redis import Patience, away_reason
from onlinerlhf.runtime.tasks import end

WRAPPED_OOM = "Error running script: @user_script:9: -OOM command not allowed when used memory > 'maxmemory'."


class Away:
    """Fails with each error in turn, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    async def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "pong"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RedisConnectionError("refused"), "Redis cannot be reached"),
        (ConnectionResetError(), "Redis cannot be reached"),
        (RedisTimeoutError(), "Redis does not answer"),
        (BusyLoadingError(), "Redis is loading its data"),
        (OutOfMemoryError("command not allowed"), "Redis is out of memory (maxmemory)"),
        (ResponseError(WRAPPED_OOM), "Redis is out of memory (maxmemory)"),
        (ResponseError("MISCONF Errors writing to the AOF file"), "Redis cannot write its files"),
        (ResponseError("WRONGTYPE Operation"), None),
        (AuthenticationError(), None),
        (ValueError(), None),
    ],
)
def test_each_way_of_being_away_has_its_reason(error: Exception, reason: str | None) -> None:
    assert away_reason(error) == reason


async def test_a_call_is_repeated_until_redis_is_back_and_health_follows(health: Health) -> None:
    reasons = []

    async def call() -> str:
        reasons.append([(part.ok, part.reason) for part in health.components()])
        return await away()

    away = Away(RedisConnectionError(), BusyLoadingError())
    assert await Patience(health)("ping", call) == "pong"
    assert reasons == [[], [(False, "Redis cannot be reached")], [(False, "Redis is loading its data")]]
    assert health.ready()


async def test_an_error_that_no_waiting_helps_is_raised_at_once(health: Health) -> None:
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await Patience(health)("ping", Away(ResponseError("WRONGTYPE Operation")))
    assert health.ready()


async def test_a_read_that_works_does_not_hide_writes_that_are_refused(health: Health) -> None:
    patience = Patience(health)
    seen: list[bool] = []

    async def write() -> str:
        if not seen:
            seen.append(health.ready())
            raise OutOfMemoryError("command not allowed")
        await patience("read", Away())
        seen.append(health.ready())
        return "written"

    assert await patience("write", write) == "written"
    assert seen == [True, False]
    assert health.ready()


async def test_health_does_not_stay_down_with_a_waiter_that_was_cancelled(health: Health) -> None:
    patience = Patience(health)
    refused = Away(*(OutOfMemoryError("full") for _ in range(99)))
    waiters = [asyncio.create_task(patience("write", refused))]
    await asyncio.sleep(0.02)
    assert await patience("read", Away()) == "pong"
    assert not health.ready()
    await end(waiters)
    assert health.ready()


async def test_giving_up_leaves_health_down(health: Health) -> None:
    with pytest.raises(Unavailable):
        await Patience(health)("ping", Away(*(RedisConnectionError() for _ in range(9))), give_up_seconds=0.1)
    assert not health.ready()


def test_a_url_that_is_none_is_a_config_error_that_does_not_quote_it() -> None:
    with pytest.raises(ConfigError) as caught:
        redis.connect(RunConfig(redis_url=SecretStr("hunter2")))
    assert "hunter2" not in str(caught.value)
