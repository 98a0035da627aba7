"""Consumers that die, hang, restart, drain or meet poison."""

import asyncio

import pytest
from redis.asyncio import Redis

from integration.streams.support import Admit, MakeConsumer, hold_in_child, pending, read_until
from onlinerlhf.core.samples import DropReason, Stage
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.redis import command
from onlinerlhf.runtime.streams import RETURNED, Streams
from redis_servers import RedisServer, redis_binaries

pytestmark = pytest.mark.parametrize("redis_binary", redis_binaries(), indirect=True)


async def test_entries_of_a_process_killed_with_sigkill_are_taken_after_its_lease(
    redis_server: RedisServer, keys: RunKeys, client: Redis, admit: Admit, consumer: MakeConsumer, streams: Streams
) -> None:
    await admit("a", "b", "c")
    child = await hold_in_child(redis_server.url, keys, name="doomed", lease_seconds=2.0)
    try:
        heir = consumer(name="heir", lease_seconds=2.0)
        # As long as it lives, and longer than its lease, nobody else gets them.
        assert await heir.read(max_count=10, block_seconds=2.5) == []
    finally:
        child.kill()
        await child.wait()
    taken = await read_until(heir, 3, seconds=10)
    assert [(each.sample_id, each.attempt) for each in taken] == [("a", 2), ("b", 2), ("c", 2)]
    assert await pending(client, keys, Stage.PROMPTS, "doomed") == 0


async def test_a_restart_under_the_same_name_finds_what_it_held_before_anything_new(
    admit: Admit, consumer: MakeConsumer, streams: Streams
) -> None:
    await admit("a", "b", "c")
    await consumer(name="one").read(max_count=3, block_seconds=0)
    await admit("d")
    restarted = consumer(name="one")
    pages = [await restarted.read(max_count=2, block_seconds=0) for _ in range(3)]
    assert [[each.sample_id for each in page] for page in pages] == [["a", "b"], ["c", "d"], []]
    assert [each.attempt for page in pages for each in page] == [2, 2, 2, 1]


async def test_a_consumer_entered_again_starts_over(admit: Admit, consumer: MakeConsumer, streams: Streams) -> None:
    await admit("a")
    one = consumer()
    async with one:
        await one.read(max_count=1, block_seconds=0)
        assert one.held == 1
    async with one:
        [again] = await one.read(max_count=1, block_seconds=0)
        assert (again.attempt, one.held) == (2, 1)


async def test_work_far_longer_than_the_lease_stays_with_whoever_does_it(
    admit: Admit, consumer: MakeConsumer, streams: Streams
) -> None:
    await admit("a")
    async with consumer(name="slow", lease_seconds=1.0) as slow:
        [delivery] = await slow.read(max_count=1, block_seconds=0)
        other = consumer(name="other", lease_seconds=1.0)
        assert await other.read(max_count=1, block_seconds=2.5) == []
        # Nor does it get its own work twice.
        assert await slow.read(max_count=1, block_seconds=0.3) == []
        assert await slow.hand_over(delivery, b"done at last")


async def test_a_lost_lease_is_let_go_and_the_later_commit_writes_nothing(
    admit: Admit, consumer: MakeConsumer, streams: Streams, ledger: Ledger
) -> None:
    await admit("a")
    slow, quick = consumer(name="slow", lease_seconds=0.3), consumer(name="quick", lease_seconds=0.3)
    [mine] = await slow.read(max_count=1, block_seconds=0)
    await asyncio.sleep(0.4)
    [theirs] = await quick.read(max_count=1, block_seconds=1)
    assert await quick.drop(theirs, DropReason.STALE)
    await slow._leases.renew()
    assert slow.held == 0
    assert not await slow.hand_over(mine, b"too late")
    await slow.close()
    assert await ledger.states() == {"a": "dropped:stale"}
    assert await streams.backlogs() == {Stage.PROMPTS: 0, Stage.ROLLOUTS: 0, Stage.SCORED: 0}


async def test_what_is_given_back_is_taken_at_once_and_not_counted_as_tried(
    admit: Admit, consumer: MakeConsumer, client: Redis, keys: RunKeys, streams: Streams
) -> None:
    await admit("a", "b")
    async with consumer(name="leaving", lease_seconds=60) as leaving:
        held = await leaving.read(max_count=2, block_seconds=0)
        await leaving.give_back(held)
        assert leaving.held == 0
        await leaving.give_back(held)
    assert [info.name for info in await streams.consumers(Stage.PROMPTS)] == [RETURNED]
    taken = await consumer(name="other", lease_seconds=60).read(max_count=5, block_seconds=0)
    assert [(each.sample_id, each.attempt) for each in taken] == [("a", 1), ("b", 1)]
    assert [each.entry_id for each in taken] == [each.entry_id for each in held]
    # A late hand of whoever gave them back changes nothing either.
    assert await pending(client, keys, Stage.PROMPTS, RETURNED) == 0


async def test_a_blocked_reader_gets_what_another_gives_back(
    admit: Admit, consumer: MakeConsumer, streams: Streams
) -> None:
    await admit("a")
    leaving, waiting = consumer(name="leaving"), consumer(name="waiting")
    held = await leaving.read(max_count=1, block_seconds=0)
    async with asyncio.TaskGroup() as group:
        read = group.create_task(waiting.read(max_count=1, block_seconds=5))
        await asyncio.sleep(0.1)
        await leaving.give_back(held)
    assert [each.sample_id for each in read.result()] == ["a"]


async def test_a_blocked_reader_wakes_for_a_new_entry(admit: Admit, consumer: MakeConsumer, streams: Streams) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        read = group.create_task(consumer().read(max_count=5, block_seconds=10))
        await asyncio.sleep(0.1)
        added = loop.time()
        await admit("a")
    assert [each.sample_id for each in read.result()] == ["a"]
    assert loop.time() - added < 0.4


async def test_readers_of_one_consumer_and_of_several_never_share_an_entry(
    admit: Admit, consumer: MakeConsumer, streams: Streams
) -> None:
    await admit(*(f"s{i}" for i in range(60)))
    one, two = consumer(name="one"), consumer(name="two")
    reads = [each.read(max_count=10, block_seconds=0) for each in (one, one, one, two, two, two)]
    taken = [delivery.sample_id for page in await asyncio.gather(*reads) for delivery in page]
    assert sorted(taken) == sorted(f"s{i}" for i in range(60))
    assert (one.held, two.held) == (30, 30)


async def test_poison_is_buried_after_the_delivery_limit_and_the_rest_flows(
    admit: Admit, consumer: MakeConsumer, streams: Streams, ledger: Ledger
) -> None:
    await admit("poison", "a", "b")
    attempts = []
    async with consumer(lease_seconds=0.1, delivery_limit=3) as worker:
        async with asyncio.timeout(10):
            while await ledger.state("poison") == "prompts":
                for delivery in await worker.read(max_count=10, block_seconds=0.2):
                    if delivery.sample_id == "poison":
                        attempts.append(delivery.attempt)
                        await worker.retry_later(delivery, "EngineError")
                    else:
                        await worker.hand_over(delivery, b"fine")
    assert attempts == [1, 2, 3]
    assert await ledger.states() == {"poison": "dropped:dead_letter", "a": "rollouts", "b": "rollouts"}
    [letter] = await streams.dead_letters(Stage.PROMPTS, 10)
    assert (letter.sample_id, letter.attempts, letter.error) == ("poison", 3, "EngineError")
    assert letter.stage is Stage.PROMPTS
    assert await streams.backlog(Stage.PROMPTS) == 0


async def test_what_kills_every_process_that_reads_it_is_buried_too(
    admit: Admit, consumer: MakeConsumer, streams: Streams, ledger: Ledger
) -> None:
    await admit("killer")
    for attempt in (1, 2):
        # Each of these "dies" with the entry in hand; the next one is its restart.
        [delivery] = await consumer(delivery_limit=2).read(max_count=1, block_seconds=0)
        assert delivery.attempt == attempt
    assert await consumer(delivery_limit=2).read(max_count=1, block_seconds=0) == []
    [letter] = await streams.dead_letters(Stage.PROMPTS, 10)
    assert (letter.sample_id, letter.attempts, letter.error) == ("killer", 2, "lease_expired")
    assert (await ledger.counts()).dropped == {"dead_letter": 1}


async def test_innocents_read_along_with_poison_are_not_buried_with_it(
    admit: Admit, consumer: MakeConsumer, streams: Streams
) -> None:
    await admit("poison", *(f"s{i}" for i in range(20)))
    done: set[str] = set()
    for _ in range(12):
        # Works one by one, and dies at the poison: the rest of its claim was never started by a hand.
        worker = consumer(delivery_limit=5)
        deliveries = await worker.read(max_count=21, block_seconds=0)
        for delivery in deliveries:
            if delivery.sample_id == "poison":
                await worker.give_back([each for each in deliveries if each.sample_id != "poison"])
                break
            await worker.hand_over(delivery, b"ok")
            done.add(delivery.sample_id)
    assert [letter.sample_id for letter in await streams.dead_letters(Stage.PROMPTS, 99)] == ["poison"]
    assert len(done) == 20


async def test_no_limit_means_no_limit(admit: Admit, consumer: MakeConsumer, streams: Streams) -> None:
    await admit("a", stage=Stage.SCORED)
    for attempt in range(1, 12):
        learner = consumer(Stage.SCORED, "learner", delivery_limit=None)
        [delivery] = await learner.read(max_count=1, block_seconds=0)
        assert delivery.attempt == attempt


async def test_entries_nobody_can_account_for_become_dead_letters_without_their_payload(
    client: Redis, keys: RunKeys, consumer: MakeConsumer, streams: Streams, ledger: Ledger, admit: Admit
) -> None:
    stream = keys.stream(Stage.PROMPTS)
    await admit("no data")
    await command(client, "XTRIM", stream, "MAXLEN", 0)
    await command(client, "XADD", stream, "*", "id", "never admitted", "data", "secret")
    await command(client, "XADD", stream, "*", "data", "secret")
    await command(client, "XADD", stream, "*", "id", "no data", "datum", "secret")
    assert await consumer().read(max_count=10, block_seconds=0) == []
    letters = await streams.dead_letters(Stage.PROMPTS, 10)
    assert [(letter.sample_id, letter.error) for letter in reversed(letters)] == [
        ("never admitted", "unknown_sample"),
        ("", "missing_id"),
        ("no data", "missing_data"),
    ]
    raw = await command(client, "XRANGE", keys.dead(Stage.PROMPTS), "-", "+")
    assert b"secret" not in repr(raw).encode()
    assert await streams.backlog(Stage.PROMPTS) == 0
    counts = await ledger.counts()
    assert (counts.dropped, counts.imbalance) == ({"malformed": 1}, 0)


async def test_an_error_that_is_no_kind_stays_out_of_redis(
    admit: Admit, consumer: MakeConsumer, streams: Streams
) -> None:
    await admit("a")
    worker = consumer()
    [delivery] = await worker.read(max_count=1, block_seconds=0)
    await worker.dead_letter(delivery, "cannot read: what is my secret?")
    [letter] = await streams.dead_letters(Stage.PROMPTS, 1)
    assert letter.error == "unspecified"


async def test_a_consumer_that_holds_nothing_leaves_the_group_and_one_that_holds_stays(
    admit: Admit, consumer: MakeConsumer, streams: Streams, client: Redis, keys: RunKeys
) -> None:
    await admit("a")
    async with consumer(name="idle") as idle, consumer(name="holder") as holder:
        await holder.read(max_count=1, block_seconds=0)
        await idle.read(max_count=1, block_seconds=0)
        infos = {info.name: info.pending for info in await streams.consumers(Stage.PROMPTS)}
        assert infos == {"idle": 0, "holder": 1}
    assert [info.name for info in await streams.consumers(Stage.PROMPTS)] == ["holder"]
    assert await pending(client, keys, Stage.PROMPTS, "holder") == 1


async def test_a_sample_that_has_moved_on_is_cleared_away_unread(
    admit: Admit, consumer: MakeConsumer, streams: Streams, client: Redis, keys: RunKeys
) -> None:
    await admit("a")
    await command(client, "XADD", keys.stream(Stage.PROMPTS), "*", "id", "a", "data", "the same once more")
    worker = consumer()
    [first] = await worker.read(max_count=1, block_seconds=0)
    await worker.hand_over(first, b"x")
    assert await worker.read(max_count=1, block_seconds=0) == []
    assert await streams.backlog(Stage.PROMPTS) == 0
    assert await streams.dead_letters(Stage.PROMPTS, 1) == []
