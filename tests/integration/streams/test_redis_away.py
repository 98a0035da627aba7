"""Redis that dies, comes back, forgets or fills up."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from integration.streams.support import Admit, MakeConsumer, admitter, eventually
from onlinerlhf.core.errors import StartupError, Unavailable
from onlinerlhf.core.samples import Stage
from onlinerlhf.runtime import redis
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.redis import Patience, command
from onlinerlhf.runtime.streams import STREAMS, Consumer, Delivery, Streams
from redis_servers import RedisServer, redis_binaries

pytestmark = pytest.mark.parametrize("redis_binary", redis_binaries(), indirect=True)

KEYS = RunKeys("away")


@contextlib.asynccontextmanager
async def client_of(server: RedisServer) -> AsyncIterator[Redis]:
    connection = redis.connect(RunConfig(id=KEYS.run, redis_url=SecretStr(server.url)))
    yield connection
    await connection.aclose()


class Pipeline:
    """A producer and two consumers a stage, which go on until told to stop."""

    def __init__(self, client: Redis, patience: Patience) -> None:
        self._client = client
        self._patience = patience
        self._admit = admitter(client, KEYS)
        self.finished = asyncio.Event()
        self.committed: dict[Stage, list[str]] = {stage: [] for stage in STREAMS}

    async def produce(self, num_samples: int) -> None:
        for i in range(num_samples):
            await self._patience("admit", partial(self._admit, f"s{i}"))

    async def work(self, stage: Stage, name: str) -> None:
        consumer = Consumer(self._client, KEYS, stage, name=name, patience=self._patience, lease_seconds=1.0)
        async with consumer:
            while not self.finished.is_set():
                for delivery in await consumer.read(max_count=8, block_seconds=0.1):
                    if await self._move_on(consumer, delivery):
                        self.committed[stage].append(delivery.sample_id)

    async def _move_on(self, consumer: Consumer, delivery: Delivery) -> bool:
        if delivery.stage is not Stage.SCORED:
            return await consumer.hand_over(delivery, delivery.payload)
        return await consumer.finish([(delivery.entry_id, delivery.sample_id)], version=2) == 1


async def test_every_id_ends_exactly_once_though_redis_is_killed_under_load(
    new_redis_server: Callable[..., RedisServer], health: Health
) -> None:
    server, num_samples = new_redis_server(), 400
    async with client_of(server) as client:
        patience, ledger, streams = Patience(health), Ledger(client, KEYS), Streams(client, KEYS)
        pipeline = Pipeline(client, patience)

        async def all_trained() -> bool:
            return (await patience("count", ledger.counts)).trained == num_samples

        async with asyncio.TaskGroup() as group:
            group.create_task(pipeline.produce(num_samples))
            for stage in STREAMS:
                group.create_task(pipeline.work(stage, "one"))
                group.create_task(pipeline.work(stage, "two"))
            for _ in range(3):
                await asyncio.sleep(0.3)
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(0.2)
                await asyncio.to_thread(server.start)
            await eventually(all_trained, seconds=30)
            pipeline.finished.set()

        assert await ledger.states() == {f"s{i}": "trained:2" for i in range(num_samples)}
        assert await ledger.counts() == await ledger.audit()
        assert set((await streams.backlogs()).values()) == {0}
        for stage in STREAMS:
            # A commit whose reply was lost is not reported; none is reported twice.
            assert len(pipeline.committed[stage]) == len(set(pipeline.committed[stage]))
            assert await streams.dead_letters(stage, 10) == []
    assert health.ready()


async def test_a_reader_outlives_a_redis_that_forgot_scripts_groups_and_data(
    client: Redis, admit: Admit, consumer: MakeConsumer, keys: RunKeys
) -> None:
    worker = consumer()
    assert await worker.read(max_count=1, block_seconds=0) == []
    await command(client, "SCRIPT FLUSH")
    await command(client, "DEL", keys.stream(Stage.PROMPTS))
    # Added before the group is made again, and read all the same.
    await admit("a")
    [delivery] = await worker.read(max_count=1, block_seconds=0)
    await command(client, "SCRIPT FLUSH")
    assert await worker.hand_over(delivery, b"x")


async def test_while_redis_is_away_reads_come_back_empty_and_health_says_why(
    new_redis_server: Callable[..., RedisServer], health: Health
) -> None:
    server = new_redis_server()
    async with client_of(server) as client:
        consumer = Consumer(client, KEYS, Stage.PROMPTS, name="one", patience=Patience(health))
        await admitter(client, KEYS)("a")
        [delivery] = await consumer.read(max_count=1, block_seconds=0)
        await asyncio.to_thread(server.kill)
        assert await consumer.read(max_count=1, block_seconds=0.3) == []
        [component] = health.components()
        assert (component.name, component.ok, component.reason) == ("redis", False, "Redis cannot be reached")
        async with asyncio.TaskGroup() as group:
            moved = group.create_task(consumer.hand_over(delivery, b"x"))
            await asyncio.sleep(0.3)
            assert not moved.done() and consumer.held == 1
            await asyncio.to_thread(server.start)
        assert moved.result()
        assert health.ready() and consumer.held == 0


async def test_patience_ends_where_it_is_told_to(new_redis_server: Callable[..., RedisServer], health: Health) -> None:
    server = new_redis_server()
    server.kill()
    async with client_of(server) as client:
        with pytest.raises(Unavailable, match=r"^count: Redis cannot be reached, for 0\.\d s$"):
            await Patience(health)("count", lambda: command(client, "DBSIZE"), give_up_seconds=0.3)


async def test_refused_credentials_are_not_waited_for(
    new_redis_server: Callable[..., RedisServer], health: Health
) -> None:
    server = new_redis_server()
    async with client_of(server) as client:
        await command(client, "CONFIG SET", "requirepass", "hunter2")
    async with client_of(server) as client:
        with pytest.raises(StartupError, match="refuses these credentials"):
            await Patience(health)("count", lambda: command(client, "DBSIZE"))


async def test_a_full_redis_still_drains(new_redis_server: Callable[..., RedisServer], health: Health) -> None:
    server = new_redis_server()
    async with client_of(server) as client:
        admit, patience, ledger = admitter(client, KEYS), Patience(health), Ledger(client, KEYS)
        await Streams(client, KEYS).ensure_groups()
        await admit(*(f"s{i}" for i in range(50)))
        await command(client, "CONFIG SET", "maxmemory", 1)
        with pytest.raises(Unavailable, match="out of memory"):
            await patience("admit", lambda: admit("one too many"), give_up_seconds=0.2)
        assert not health.ready()
        names = ((Stage.PROMPTS, b"a rollout"), (Stage.ROLLOUTS, b"a score"))
        for stage, payload in names:
            consumer = Consumer(client, KEYS, stage, name="one", patience=patience)
            await consumer.give_back(await consumer.read(max_count=50, block_seconds=0))
            moved = [
                await consumer.hand_over(delivery, payload)
                for delivery in await consumer.read(max_count=50, block_seconds=0)
            ]
            assert moved == [True] * 50
        learner = Consumer(client, KEYS, Stage.SCORED, name="one", patience=patience)
        held = await learner.read(max_count=50, block_seconds=0)
        assert await learner.finish([(each.entry_id, each.sample_id) for each in held], version=2) == 50
        assert (await ledger.counts()).trained == 50
        await command(client, "CONFIG SET", "maxmemory", 0)
        await patience("admit", lambda: admit("one too many"))
        assert health.ready()
        assert (await ledger.counts()).imbalance == 0
