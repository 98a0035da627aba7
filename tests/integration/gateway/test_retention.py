"""Data go when they are old, and what pointed at them with them."""

import asyncio
import time

import pytest
from redis.asyncio import Redis

from integration.owned_samples import ANN, BOB, OwnedSamples
from onlinerlhf.core.samples import Stage
from onlinerlhf.gateway.admission.pool import dedup_of
from onlinerlhf.gateway.rights.retention import Retention
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.redis import Patience, command
from redis_servers import redis_binaries

pytestmark = pytest.mark.parametrize("redis_binary", redis_binaries(), indirect=True)

DAY = 86_400


@pytest.fixture
def samples(client: Redis, keys: RunKeys) -> OwnedSamples:
    """Puts them anywhere."""
    return OwnedSamples(client, keys)


@pytest.fixture
def retention(client: Redis, keys: RunKeys, patience: Patience) -> Retention:
    """Keeps data for a day."""
    return Retention(client, keys, patience, retention_seconds=DAY, sweep_seconds=0.05)


async def test_a_prompt_that_waited_too_long_is_dropped_and_leaves_the_pool_and_every_index(
    samples: OwnedSamples, retention: Retention, client: Redis, keys: RunKeys
) -> None:
    now = int(time.time())
    await samples.put("old", ANN, Stage.POOL, shown_at=now - DAY - 5)
    await samples.put("new", ANN, Stage.POOL, shown_at=now - DAY + 60)
    assert await retention.sweep() == 1
    ledger = Ledger(client, keys)
    assert await ledger.states() == {"old": "dropped:expired", "new": "pool"}
    assert (await ledger.counts()).imbalance == 0
    assert await ledger.counts() == await ledger.audit()
    assert await command(client, "EXISTS", keys.prompt("old"), keys.prompt("new")) == 1
    assert await command(client, "ZRANGE", keys.prompts_by_age, 0, -1) == [b"new"]
    assert await command(client, "ZRANGE", keys.prompts_of(ANN), 0, -1) == [b"new"]
    assert await command(client, "HKEYS", dedup_of(keys, ANN)) == [b"new"]
    assert await command(client, "HLEN", keys.dedup) == 2
    assert await retention.sweep() == 0


async def test_what_was_learned_from_keeps_its_state_and_its_owner_in_the_ledger(
    samples: OwnedSamples, retention: Retention, client: Redis, keys: RunKeys
) -> None:
    await samples.put_for_reuse("a1.1", ANN)
    await samples.put("b1", BOB, Stage.SCORED, shown_at=5)
    assert await retention.sweep() == 2
    assert await Ledger(client, keys).states() == {"a1": "trained:3", "b1": "scored"}
    assert await command(client, "HLEN", keys.ledger_owners) == 2
    assert await command(client, "EXISTS", keys.prompt("a1"), keys.prompts_of(ANN), dedup_of(keys, ANN)) == 0


async def test_held_out_prompts_go_too_whether_or_not_their_record_has_expired_by_itself(
    samples: OwnedSamples, retention: Retention, client: Redis, keys: RunKeys
) -> None:
    for prompt_id in ("there", "gone"):
        await samples.put(prompt_id, ANN, Stage.POOL, shown_at=5)
        await command(client, "HSET", keys.key("held_out"), prompt_id, "test")
    await command(client, "HDEL", keys.ledger_owners, "there", "gone")
    await command(client, "DEL", keys.prompt("gone"))
    assert await retention.sweep() == 2
    left = [keys.key("held_out"), keys.prompt("there"), keys.prompts_of(ANN), dedup_of(keys, ANN), keys.dedup]
    assert await command(client, "EXISTS", *left, keys.prompts_by_age) == 0


async def test_more_prompts_than_fit_a_page_all_go(
    samples: OwnedSamples, retention: Retention, client: Redis, keys: RunKeys
) -> None:
    for number in range(450):
        await samples.put(f"p{number}", (ANN, BOB)[number % 2], Stage.POOL, shown_at=5)
    assert await retention.sweep() == 450
    assert (await Ledger(client, keys).counts()).dropped == {"expired": 450}
    assert await command(client, "EXISTS", keys.prompts_of(ANN), keys.prompts_of(BOB), keys.dedup) == 0


@pytest.mark.parametrize(
    "index", ["receipts_of:{}", "answers_of:{}", "feedback_of:{}", "answers_by_age", "feedback_by_age"]
)
async def test_old_places_in_an_index_go(retention: Retention, client: Redis, keys: RunKeys, index: str) -> None:
    name, now = keys.key(index.format(ANN)), int(time.time())
    await command(client, "ZADD", name, now - DAY - 5, "old", now - 60, "new")
    await retention.sweep()
    assert await command(client, "ZRANGE", name, 0, -1) == [b"new"]


async def test_it_sweeps_until_it_is_stopped(
    samples: OwnedSamples, retention: Retention, client: Redis, keys: RunKeys
) -> None:
    stop = asyncio.Event()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(retention.run(stop), name="retention")
        for prompt_id in ("first", "second"):
            await samples.put(prompt_id, ANN, Stage.POOL, shown_at=5)
            while await Ledger(client, keys).state(prompt_id) != "dropped:expired":  # noqa: ASYNC110 - it is in Redis
                await asyncio.sleep(0.01)
        stop.set()
