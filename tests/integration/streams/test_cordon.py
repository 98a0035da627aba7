"""Consumers that are told to take nothing new."""

import asyncio
from collections.abc import Callable

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from integration.streams.support import Admit, MakeConsumer, pending, read_until
from onlinerlhf.core.samples import Stage
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.cordon import Cordon, cordon
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import connect
from onlinerlhf.runtime.streams import Streams
from redis_servers import RedisServer, redis_binaries

pytestmark = pytest.mark.parametrize("redis_binary", redis_binaries(), indirect=True)


async def test_a_cordoned_consumer_gets_nothing_new_nothing_given_back_and_nothing_of_the_dead(
    admit: Admit, consumer: MakeConsumer, client: Redis, keys: RunKeys, streams: Streams
) -> None:
    await admit("dead", "returned", "new")
    dying, leaving = consumer(name="dying", lease_seconds=0.2), consumer(name="leaving")
    await dying.read(max_count=1, block_seconds=0)
    await leaving.give_back(await leaving.read(max_count=1, block_seconds=0))
    await cordon(client, keys, ["one", "two"], seconds=60)
    one, other = consumer(name="one", lease_seconds=0.2), consumer(name="other", lease_seconds=0.2)
    assert await one.read(max_count=9, block_seconds=0.6) == []
    assert await one.look_for_cordon()
    taken = await read_until(other, 3)
    assert sorted(each.sample_id for each in taken) == ["dead", "new", "returned"]
    assert not await other.look_for_cordon()


async def test_what_was_its_own_before_a_restart_a_cordoned_consumer_still_gets(
    admit: Admit, consumer: MakeConsumer, client: Redis, keys: RunKeys, streams: Streams
) -> None:
    await admit("a", "b", "c")
    await consumer().read(max_count=2, block_seconds=0)
    await cordon(client, keys, ["one"], seconds=60)
    async with consumer() as restarted:
        taken = await restarted.read(max_count=9, block_seconds=0)
        assert [each.sample_id for each in taken] == ["a", "b"]
        for each in taken:
            assert await restarted.hand_over(each, b"rollouts")
        assert await restarted.read(max_count=9, block_seconds=0) == []
    assert await pending(client, keys, Stage.PROMPTS, "one") == 0


async def test_a_lifted_cordon_lets_a_blocked_reader_go_on_within_a_second(
    admit: Admit, consumer: MakeConsumer, client: Redis, keys: RunKeys, streams: Streams
) -> None:
    await admit("a")
    await cordon(client, keys, ["one", "two"], seconds=60)
    async with asyncio.TaskGroup() as group:
        read = group.create_task(consumer().read(max_count=1, block_seconds=5))
        await asyncio.sleep(0.2)
        await cordon(client, keys, ["two"], lift=["one"], seconds=60)
        async with asyncio.timeout(1):
            assert [each.sample_id for each in await read] == ["a"]


async def test_a_cordon_lapses_where_nobody_renews_it_and_holds_while_somebody_does(
    admit: Admit, consumer: MakeConsumer, client: Redis, keys: RunKeys, streams: Streams
) -> None:
    await admit("a")
    one = consumer()
    for _ in range(4):
        await cordon(client, keys, ["one"], seconds=0.4)
        assert await one.read(max_count=1, block_seconds=0.2) == []
    assert len(await one.read(max_count=1, block_seconds=2)) == 1
    assert await client.exists(keys.cordoned) == 0


async def test_who_is_neither_named_nor_lifted_stays_cordoned_until_that_lapses(client: Redis, keys: RunKeys) -> None:
    """Such as a pod on its way out: it shall not take work again in its last seconds."""
    await cordon(client, keys, ["going", "slow"], seconds=60)
    await cordon(client, keys, ["slow"], lift=["needed"], seconds=60)
    await cordon(client, keys, [], lift=["slow"], seconds=60)
    assert await client.zrange(keys.cordoned, 0, -1) == [b"going"]
    assert 55_000 < await client.pttl(keys.cordoned) <= 60_000


async def test_a_cordoned_reader_rests_though_there_is_work(
    admit: Admit, consumer: MakeConsumer, client: Redis, keys: RunKeys, streams: Streams
) -> None:
    await admit("a")
    await cordon(client, keys, ["one"], seconds=60)
    before = int((await client.info("stats"))["total_commands_processed"])
    assert await consumer().read(max_count=1, block_seconds=1.2) == []
    calls = int((await client.info("stats"))["total_commands_processed"]) - before
    # Three looks of a few commands each.
    assert calls < 60


async def test_while_redis_is_away_a_cordon_lasts_no_longer_than_was_promised(
    new_redis_server: Callable[..., RedisServer], run_config: RunConfig, keys: RunKeys
) -> None:
    server = new_redis_server()
    async with connect(run_config.model_copy(update={"redis_url": SecretStr(server.url)})) as client:
        await cordon(client, keys, ["one"], seconds=1.5)
        one = Cordon(client, keys, name="one")
        assert await one.look()
        server.kill()
        assert await one.look()
        await asyncio.sleep(1.5)
        assert not await one.look()
