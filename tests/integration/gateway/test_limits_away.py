"""Limits while Redis is away, hangs, or was asked by a caller that has gone."""

import asyncio
import time
from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from redis.asyncio import Redis

from integration.gateway.limits_support import Tries, caller, defaults
from onlinerlhf.gateway.access.buckets import Dimension
from onlinerlhf.gateway.access.callers import KeyClass, Limits
from onlinerlhf.gateway.access.degraded import RedisAway
from onlinerlhf.gateway.access.limit_defaults import limit_keys
from onlinerlhf.gateway.access.limits import Meter, Reservation
from onlinerlhf.runtime import redis
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import command
from redis_servers import RedisServer, redis_binaries

pytestmark = pytest.mark.parametrize("redis_binary", redis_binaries(), indirect=True)


async def test_while_redis_is_away_playground_is_refused_and_production_goes_on_under_the_same_numbers(
    new_redis_server: Callable[..., RedisServer], keys: RunKeys
) -> None:
    server = new_redis_server()
    client = redis.connect(RunConfig(redis_url=SecretStr(server.url)))
    limits = defaults(Limits(requests_per_minute=10, max_concurrent=20))
    meter = Meter(client, keys, limits)
    before = await meter.reserve(caller(KeyClass.PRODUCTION), num_tokens=1, request_id="before")
    server.kill()
    started = time.monotonic()
    with pytest.raises(RedisAway) as refused:
        await meter.reserve(caller(), num_tokens=1, request_id="r")
    assert time.monotonic() - started < 1.5
    assert refused.value.retry_after_seconds == 2.0
    production = Tries(meter, caller(KeyClass.PRODUCTION))
    num_before = REGISTRY.get_sample_value("onlinerlhf_gateway_local_grants_total") or 0.0
    for _ in range(12):
        await production.once()
    assert len(production.granted) == 10
    assert REGISTRY.get_sample_value("onlinerlhf_gateway_local_grants_total") == num_before + 10
    assert all(reservation.is_local for reservation in production.granted)
    await meter.settle(before, num_tokens=1)
    await meter.settle(production.granted[0], num_tokens=1)
    server.start()
    stop = asyncio.Event()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(meter.run(stop))
        while meter.is_behind or not await command(client, "EXISTS", keys.key("limit_defaults")):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        stop.set()
    _, leases = limit_keys(keys, Dimension.KEY, "k")
    assert await command(client, "EXISTS", leases) == 0
    granted = await meter.reserve(caller(KeyClass.PRODUCTION), num_tokens=1, request_id="after")
    assert not granted.is_local
    await client.aclose()


async def test_production_is_served_without_redis_for_a_while_only(
    new_redis_server: Callable[..., RedisServer], keys: RunKeys
) -> None:
    server = new_redis_server()
    client = redis.connect(RunConfig(redis_url=SecretStr(server.url)))
    server.kill()
    now = 1000.0
    meter = Meter(client, keys, defaults(Limits()), serve_without_redis_seconds=300, clock=lambda: now)
    assert (await meter.reserve(caller(KeyClass.PRODUCTION), num_tokens=1, request_id="r1")).is_local
    now += 301
    with pytest.raises(RedisAway):
        await meter.reserve(caller(KeyClass.PRODUCTION), num_tokens=1, request_id="r2")
    await client.aclose()


async def test_a_redis_that_hangs_holds_an_answer_up_for_half_a_second_and_the_next_not_at_all(
    client: Redis, keys: RunKeys, run_config: RunConfig
) -> None:
    meter = Meter(client, keys, defaults(Limits()))
    await meter.reserve(caller(KeyClass.PRODUCTION), num_tokens=1, request_id="r0")
    other = redis.connect(run_config)
    await command(other, "CLIENT", "PAUSE", 2000, "ALL")
    for number, most_seconds in enumerate((1.0, 0.3, 0.3), start=1):
        started = time.monotonic()
        reservation = await meter.reserve(caller(KeyClass.PRODUCTION), num_tokens=1, request_id=f"r{number}")
        assert time.monotonic() - started < most_seconds
        assert reservation.is_local
    await asyncio.sleep(2)
    await other.aclose()


async def test_a_caller_that_goes_while_it_reserves_leaves_nothing_behind(client: Redis, keys: RunKeys) -> None:
    meter = Meter(client, keys, defaults(Limits(max_concurrent=1)))
    for number in range(20):
        going = asyncio.create_task(meter.reserve(caller(), num_tokens=1, request_id=f"r{number}"))
        for _ in range(number):
            await asyncio.sleep(0)
        going.cancel()
        result = (await asyncio.gather(going, return_exceptions=True))[0]
        await asyncio.sleep(0.01)
        await meter._settle_overdue()
        if isinstance(result, Reservation):
            await meter.settle(result, num_tokens=1)
    await meter.reserve(caller(), num_tokens=1, request_id="last")


async def test_with_zero_seconds_without_redis_production_is_refused_at_once(
    new_redis_server: Callable[..., RedisServer], keys: RunKeys
) -> None:
    server = new_redis_server()
    client = redis.connect(RunConfig(redis_url=SecretStr(server.url)))
    server.kill()
    meter = Meter(client, keys, defaults(Limits()), serve_without_redis_seconds=0, clock=lambda: 1000.0)
    with pytest.raises(RedisAway):
        await meter.reserve(caller(KeyClass.PRODUCTION), num_tokens=1, request_id="r")
    await client.aclose()
