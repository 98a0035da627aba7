"""How old the backlog is, and for how long work in hand has gone without a sign of life: what alerts go by."""

import asyncio

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from integration.streams.support import Admit, MakeConsumer
from onlinerlhf.core.samples import Stage
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.redis import command
from onlinerlhf.runtime.streams import Streams
from redis_servers import redis_binaries

pytestmark = pytest.mark.parametrize("redis_binary", redis_binaries(), indirect=True)


async def exported(ledger: Ledger) -> None:
    """One turn of the exporter."""
    stop = asyncio.Event()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(ledger.export_forever(stop))
        await asyncio.sleep(0.1)
        stop.set()


def oldest(stage: Stage) -> float | None:
    return REGISTRY.get_sample_value("onlinerlhf_stream_oldest_seconds", {"stage": stage})


def idle(stage: Stage) -> float | None:
    return REGISTRY.get_sample_value("onlinerlhf_stream_pending_idle_seconds", {"stage": stage})


async def enter(client: Redis, keys: RunKeys, stage: Stage, *, seconds_ago: float) -> str:
    """An entry that has been there for so long."""
    second, _ = await command(client, "TIME")
    entry_id = f"{int((int(second) - seconds_ago) * 1000)}-0"
    await command(client, "XADD", keys.stream(stage), entry_id, "id", "a", "data", "x")
    return entry_id


async def test_streams_that_nobody_has_made_yet_are_empty(ledger: Ledger) -> None:
    await exported(ledger)
    assert oldest(Stage.PROMPTS) == 0
    assert idle(Stage.PROMPTS) == 0


async def test_the_oldest_entry_counts_whether_it_is_in_hand_or_not(
    client: Redis, keys: RunKeys, ledger: Ledger, admit: Admit
) -> None:
    await enter(client, keys, Stage.PROMPTS, seconds_ago=90)
    await admit("b")
    await exported(ledger)
    assert oldest(Stage.PROMPTS) == pytest.approx(90.5, abs=2)
    assert oldest(Stage.SCORED) == 0


async def test_work_in_hand_is_as_idle_as_its_most_idle_entry(
    client: Redis, keys: RunKeys, ledger: Ledger, streams: Streams, admit: Admit, consumer: MakeConsumer
) -> None:
    await admit("a", "b", "c")
    first, second, third = await consumer().read(max_count=3, block_seconds=0)
    await exported(ledger)
    assert idle(Stage.PROMPTS) == pytest.approx(0, abs=2)

    stream = keys.stream(Stage.PROMPTS)
    for delivery, milliseconds in ((first, 5_000), (second, 42_000), (third, 7_000)):
        await command(client, "XCLAIM", stream, keys.group, "dead", 0, delivery.entry_id, "IDLE", milliseconds)
    await exported(ledger)
    assert idle(Stage.PROMPTS) == pytest.approx(42, abs=2)


async def test_the_age_goes_back_to_nothing_with_the_last_entry(
    client: Redis, keys: RunKeys, ledger: Ledger, streams: Streams
) -> None:
    entry_id = await enter(client, keys, Stage.ROLLOUTS, seconds_ago=30)
    await exported(ledger)
    assert oldest(Stage.ROLLOUTS) == pytest.approx(30.5, abs=2)
    await command(client, "XDEL", keys.stream(Stage.ROLLOUTS), entry_id)
    await exported(ledger)
    assert oldest(Stage.ROLLOUTS) == 0
