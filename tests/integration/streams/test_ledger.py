"""Counters equal ids, whatever was done in whatever order."""

import asyncio
import random

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from integration.streams.support import Admit, MakeConsumer
from onlinerlhf.core.errors import WaitTimeout
from onlinerlhf.core.samples import DropReason, Stage
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import LUA_TRANSITION, Ledger
from onlinerlhf.runtime.redis import Script, command
from onlinerlhf.runtime.streams import STREAMS, Consumer, Delivery, Streams
from prompts import OWNER
from redis_servers import redis_binaries

pytestmark = pytest.mark.parametrize("redis_binary", redis_binaries(), indirect=True)


async def act(action: str, worker: Consumer, delivery: Delivery, *, version: int) -> None:
    match action:
        case "drop":
            await worker.drop(delivery, DropReason.STALE)
        case "bury":
            await worker.dead_letter(delivery, "malformed")
        case "back":
            await worker.give_back([delivery])
        case "later":
            await worker.retry_later(delivery, "EngineError")
        case "on" if delivery.stage is Stage.SCORED:
            await worker.finish([(delivery.entry_id, delivery.sample_id)], version=version)
        case "on":
            await worker.hand_over(delivery, b"payload")


@pytest.mark.parametrize("seed", [1, 2])
async def test_the_counters_equal_the_states_after_a_random_walk(
    seed: int, admit: Admit, consumer: MakeConsumer, ledger: Ledger, streams: Streams
) -> None:
    draw = random.Random(seed)
    num_admitted = 0
    seen: list[Delivery] = []
    for _ in range(300):
        action = draw.choice(["admit", "read", "read", "on", "on", "on", "drop", "bury", "back", "later"])
        if action == "admit":
            await admit(*(f"s{num_admitted + i}" for i in range(3)))
            num_admitted += 3
        elif action == "read":
            lease_seconds = draw.choice([0.0, 60.0])
            reader = consumer(draw.choice(STREAMS), draw.choice("xyz"), lease_seconds=lease_seconds, delivery_limit=3)
            seen += await reader.read(max_count=draw.randint(1, 4), block_seconds=0)
        elif seen:
            # Any delivery ever seen, so many come late, twice, or after somebody else's.
            delivery = draw.choice(seen)
            worker = consumer(delivery.stage, draw.choice("xyz"), delivery_limit=3)
            await act(action, worker, delivery, version=draw.randint(2, 5))
        counts = await ledger.counts()
        assert counts.imbalance == 0
    assert counts == await ledger.audit()
    assert counts.admitted == num_admitted
    assert counts.trained > 0 and counts.dropped["stale"] > 0 and counts.dropped["malformed"] > 0
    for stage, backlog in (await streams.backlogs()).items():
        assert backlog >= counts.pending[stage]
        # Entries of samples that moved on go when they are met; then the backlog is the ledger's.
        reader = consumer(stage, "last", lease_seconds=0.0, delivery_limit=None)
        await reader.read(max_count=1000, block_seconds=0)
        assert await streams.backlog(stage) == counts.pending[stage]


@pytest.mark.parametrize(
    ("word", "proof", "answer"),
    [
        (None, f"{OWNER}|1000", None),
        ("withdrawn:999", f"{OWNER}|1000", None),
        ("withdrawn:1000", f"{OWNER}|1000", b"withdrawn"),
        ("withdrawn:", f"{OWNER}|1000", b"withdrawn"),
        ("erased", f"{OWNER}|1000", b"erased"),
        (None, None, b"erased"),
    ],
)
async def test_the_ledger_tells_whether_a_samples_consent_still_counts(
    client: Redis, keys: RunKeys, word: str | None, proof: str | None, answer: bytes | None
) -> None:
    if word is not None:
        await command(client, "HSET", keys.blocked, OWNER, word)
    if proof is not None:
        await command(client, "HSET", keys.ledger_owners, "s1", proof)
    look = Script(LUA_TRANSITION + "return ledger_blocked(KEYS[1], KEYS[2], 's1') or false")
    assert await look.run(client, [keys.blocked, keys.ledger_owners]) == answer


async def test_the_gauges_follow_the_ledger(
    admit: Admit, consumer: MakeConsumer, ledger: Ledger, streams: Streams
) -> None:
    await admit("a", "b", "c")
    worker = consumer()
    a, b = await worker.read(max_count=2, block_seconds=0)
    await worker.hand_over(a, b"x")
    await worker.drop(b, DropReason.STALE)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(ledger.export_forever(stop))
        await asyncio.sleep(0.1)
        stop.set()
    gauge = REGISTRY.get_sample_value
    assert gauge("onlinerlhf_ledger_admitted") == 3
    assert gauge("onlinerlhf_ledger_imbalance") == 0
    assert gauge("onlinerlhf_ledger_samples", {"state": "prompts", "reason": ""}) == 1
    assert gauge("onlinerlhf_ledger_samples", {"state": "rollouts", "reason": ""}) == 1
    assert gauge("onlinerlhf_ledger_samples", {"state": "dropped", "reason": "stale"}) == 1
    assert gauge("onlinerlhf_stream_backlog", {"stage": "rollouts"}) == 1


async def test_states_are_read_page_by_page(client: Redis, keys: RunKeys, ledger: Ledger) -> None:
    expected = {f"s{i}": "trained:3" if i % 2 else "pool" for i in range(5000)}
    flat = [part for pair in expected.items() for part in pair]
    await command(client, "HSET", keys.ledger_states, *flat)
    assert await ledger.states() == expected
    audit = await ledger.audit()
    assert (audit.admitted, audit.trained, audit.pending[Stage.POOL]) == (5000, 2500, 2500)
    assert await ledger.state("s1") == "trained:3"
    assert await ledger.state("nobody") is None


async def test_a_producer_waits_until_there_is_room(admit: Admit, consumer: MakeConsumer, streams: Streams) -> None:
    await admit("a", "b", "c")
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(streams.wait_for_room(STREAMS, bound=lambda: 3, what="room", stop=stop))
        await asyncio.sleep(0.25)
        assert not waiting.done()
        worker = consumer()
        [delivery] = await worker.read(max_count=1, block_seconds=0)
        await worker.drop(delivery, DropReason.STALE)
    assert not stop.is_set()


async def test_waiting_for_room_ends_by_itself_and_at_once_on_stop(admit: Admit, streams: Streams) -> None:
    await admit("a")
    stop = asyncio.Event()
    with pytest.raises(WaitTimeout, match="waited 0 s for the learner to catch up: 1 entries, bound 1"):
        await streams.wait_for_room(
            [Stage.PROMPTS], bound=1, what="the learner to catch up", stop=stop, timeout_seconds=0.2
        )
    async with asyncio.timeout(1), asyncio.TaskGroup() as group:
        group.create_task(streams.wait_for_room([Stage.PROMPTS], bound=1, what="room", stop=stop))
        stop.set()
