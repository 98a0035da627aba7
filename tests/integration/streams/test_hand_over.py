"""Moving samples on: atomic, once, and by whoever commits first."""

import asyncio

import pytest
from redis.asyncio import Redis

from integration.streams.support import Admit, MakeConsumer
from onlinerlhf.core.samples import DropReason, Stage
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.redis import command
from onlinerlhf.runtime.streams import STREAMS, Streams
from redis_servers import redis_binaries

pytestmark = pytest.mark.parametrize("redis_binary", redis_binaries(), indirect=True)


async def test_a_sample_passes_all_stages_and_ends_trained(
    admit: Admit, consumer: MakeConsumer, streams: Streams, ledger: Ledger
) -> None:
    await admit("a")
    prompts, rollouts, scored = consumer(Stage.PROMPTS), consumer(Stage.ROLLOUTS), consumer(Stage.SCORED)
    [prompt] = await prompts.read(max_count=10, block_seconds=0)
    assert (prompt.sample_id, prompt.payload, prompt.attempt) == ("a", b"payload of a", 1)
    assert await prompts.hand_over(prompt, b"rollout \x00\xff")
    [rollout] = await rollouts.read(max_count=10, block_seconds=0)
    assert rollout.payload == b"rollout \x00\xff"
    assert await rollouts.hand_over(rollout, b"scored")
    [score] = await scored.read(max_count=10, block_seconds=0)
    assert await scored.finish([(score.entry_id, score.sample_id)], version=7) == 1
    assert await ledger.state("a") == "trained:7"
    assert await streams.backlogs() == {Stage.PROMPTS: 0, Stage.ROLLOUTS: 0, Stage.SCORED: 0}
    counts = await ledger.counts()
    assert (counts.admitted, counts.trained, counts.imbalance) == (1, 1, 0)
    assert prompts.held == rollouts.held == scored.held == 0


async def test_the_second_of_two_racing_commits_writes_nothing(
    admit: Admit, consumer: MakeConsumer, streams: Streams, ledger: Ledger
) -> None:
    await admit("a")
    slow, quick = consumer(name="slow", lease_seconds=0.05), consumer(name="quick", lease_seconds=0.05)
    [first] = await slow.read(max_count=1, block_seconds=0)
    await asyncio.sleep(0.1)
    [second] = await quick.read(max_count=1, block_seconds=1)
    assert first.entry_id == second.entry_id and second.attempt == 2
    results = await asyncio.gather(slow.hand_over(first, b"by slow"), quick.hand_over(second, b"by quick"))
    assert sorted(results) == [False, True]
    assert await streams.backlogs() == {Stage.PROMPTS: 0, Stage.ROLLOUTS: 1, Stage.SCORED: 0}
    assert await ledger.state("a") == "rollouts"
    [rollout] = await consumer(Stage.ROLLOUTS).read(max_count=9, block_seconds=0)
    assert rollout.payload == (b"by slow" if results[0] else b"by quick")


async def test_every_ending_may_be_repeated(
    admit: Admit, consumer: MakeConsumer, streams: Streams, ledger: Ledger
) -> None:
    await admit("a", "b", "c")
    await admit("d", stage=Stage.SCORED)
    prompts, learner = consumer(), consumer(Stage.SCORED)
    a, b, c = await prompts.read(max_count=3, block_seconds=0)
    [d] = await learner.read(max_count=1, block_seconds=0)
    trained = [(d.entry_id, d.sample_id)]
    assert await prompts.hand_over(a, b"x") and not await prompts.hand_over(a, b"y")
    assert await prompts.drop(b, DropReason.STALE) and not await prompts.drop(b, DropReason.STALE)
    assert await prompts.dead_letter(c, "malformed") and not await prompts.dead_letter(c, "malformed")
    assert [await learner.finish(trained, version=3), await learner.finish(trained, version=4)] == [1, 0]
    assert not await prompts.hand_over(b, b"dropped before")
    assert await ledger.states() == {"a": "rollouts", "b": "dropped:stale", "c": "dropped:malformed", "d": "trained:3"}
    assert await ledger.counts() == await ledger.audit()
    assert (await ledger.counts()).imbalance == 0
    assert len(await streams.dead_letters(Stage.PROMPTS, 10)) == 1


async def test_nothing_is_left_behind_by_a_sample_that_moved_on(
    admit: Admit, consumer: MakeConsumer, client: Redis, keys: RunKeys, streams: Streams
) -> None:
    await admit("a", "b")
    async with consumer(lease_seconds=0.06) as prompts:
        [a] = await prompts.read(max_count=1, block_seconds=0)
        await prompts.retry_later(a, "EngineError")
        got = [await prompts.read(max_count=1, block_seconds=1), await prompts.read(max_count=1, block_seconds=1)]
        for [delivery] in got:
            await prompts.hand_over(delivery, b"x")
    left = await command(client, "KEYS", keys.key("*"))
    names = {name.decode().removeprefix(keys.key("")) for name in left}
    assert names == {f"ledger:{name}" for name in ("states", "counts", "owners")} | {
        f"stream:{stage}" for stage in STREAMS
    }
    assert await streams.consumers(Stage.PROMPTS) == []


async def test_all_keys_of_a_run_share_a_hash_slot(client: Redis, keys: RunKeys) -> None:
    names = [keys.stream(Stage.PROMPTS), keys.dead(Stage.SCORED), keys.ledger_states, keys.prompt("p"), keys.key("x")]
    assert all(name.startswith(f"onlinerlhf:{{{keys.run}}}:") for name in names)
