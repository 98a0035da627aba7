"""Withdrawal and erasure take effect at the next read, whatever else has happened by then."""

import pytest
from redis.asyncio import Redis

from integration.owned_samples import ANN, BOB, SHOWN_AT, OwnedSamples
from integration.streams.support import MakeConsumer
from onlinerlhf.core.samples import Stage
from onlinerlhf.runtime import metrics, rights
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.redis import command
from onlinerlhf.runtime.streams import Consumer, Streams
from redis_servers import redis_binaries

pytestmark = pytest.mark.parametrize("redis_binary", redis_binaries(), indirect=True)

ERASED, WITHDRAWN = ("erased", "dropped:erased"), (f"withdrawn:{SHOWN_AT}", "dropped:withdrawn")


@pytest.fixture
def samples(client: Redis, keys: RunKeys) -> OwnedSamples:
    """Of this run."""
    return OwnedSamples(client, keys)


async def _read(consumer: Consumer) -> list[str]:
    return [delivery.sample_id for delivery in await consumer.read(max_count=10, block_seconds=0)]


def _dropped(stage: Stage, reason: str) -> float:
    return float(metrics.DROPPED.labels(stage, reason)._value.get())


@pytest.mark.parametrize("stage", [Stage.PROMPTS, Stage.ROLLOUTS, Stage.SCORED])
@pytest.mark.parametrize(("word", "state"), [ERASED, WITHDRAWN])
async def test_a_blocked_owners_samples_are_dropped_where_they_are_read_and_leave_no_letter(
    samples: OwnedSamples, consumer: MakeConsumer, streams: Streams, ledger: Ledger, stage: Stage, word: str, state: str
) -> None:
    await samples.put("a1", ANN, stage)
    await samples.put("b1", BOB, stage)
    await samples.put("a2", ANN, stage)
    before = _dropped(stage, state.partition(":")[2])
    await samples.block(ANN, word)
    assert await _read(consumer(stage)) == ["b1"]
    assert await ledger.states() == {"a1": state, "a2": state, "b1": stage}
    assert await streams.backlog(stage) == 1
    assert await streams.dead_letters(stage, 10) == []
    assert _dropped(stage, state.partition(":")[2]) == before + 2
    assert (await ledger.counts()).imbalance == 0
    assert await ledger.counts() == await ledger.audit()


async def test_consent_shown_after_a_withdrawal_counts_again(
    samples: OwnedSamples, consumer: MakeConsumer, ledger: Ledger
) -> None:
    await samples.put("old", ANN, Stage.PROMPTS, shown_at=SHOWN_AT)
    await samples.put("new", ANN, Stage.PROMPTS, shown_at=SHOWN_AT + 1)
    await samples.block(ANN, f"withdrawn:{SHOWN_AT}")
    assert await _read(consumer()) == ["new"]
    assert await ledger.states() == {"old": "dropped:withdrawn", "new": "prompts"}


async def test_what_a_dead_or_draining_consumer_left_is_not_delivered_again(
    samples: OwnedSamples, consumer: MakeConsumer, streams: Streams, ledger: Ledger
) -> None:
    for sample_id in ("given", "own", "dead"):
        await samples.put(sample_id, ANN, Stage.ROLLOUTS)
    one, gone = consumer(Stage.ROLLOUTS, "one"), consumer(Stage.ROLLOUTS, "gone", lease_seconds=0.01)
    [given, _] = await one.read(max_count=2, block_seconds=0)
    await gone.read(max_count=1, block_seconds=0)
    await one.give_back([given])
    await samples.block(ANN, "erased")
    again = consumer(Stage.ROLLOUTS, "one", lease_seconds=0.01)
    assert await again.read(max_count=10, block_seconds=0.2) == []
    assert set((await ledger.states()).values()) == {"dropped:erased"}
    assert await streams.backlog(Stage.ROLLOUTS) == 0


@pytest.mark.parametrize(("word", "state"), [ERASED, WITHDRAWN])
async def test_what_was_in_hand_when_its_owner_was_blocked_is_dropped_instead_of_handed_over(
    samples: OwnedSamples, consumer: MakeConsumer, streams: Streams, ledger: Ledger, word: str, state: str
) -> None:
    await samples.put("a1", ANN, Stage.PROMPTS)
    worker = consumer()
    [delivery] = await worker.read(max_count=1, block_seconds=0)
    await samples.block(ANN, word)
    assert not await worker.hand_over(delivery, b"rollouts")
    assert not await worker.hand_over(delivery, b"rollouts")
    assert await ledger.states() == {"a1": state}
    assert await streams.backlogs() == {Stage.PROMPTS: 0, Stage.ROLLOUTS: 0, Stage.SCORED: 0}
    assert (worker.held, (await ledger.counts()).imbalance) == (0, 0)


async def test_confirming_what_is_held_takes_away_what_may_not_be_used_any_more(
    samples: OwnedSamples, consumer: MakeConsumer, streams: Streams, ledger: Ledger
) -> None:
    for sample_id, owner in (("a1", ANN), ("b1", BOB), ("b2", BOB)):
        await samples.put(sample_id, owner, Stage.SCORED)
    learner = consumer(Stage.SCORED)
    held = await learner.read(max_count=3, block_seconds=0)
    assert await learner.confirm(held) == held
    assert await learner.confirm([]) == []
    await samples.block(ANN, "erased")
    await consumer(Stage.SCORED, "other").finish([(held[2].entry_id, "b2")], version=9)
    assert await learner.confirm(held) == [held[1]]
    assert [delivery.sample_id for delivery in learner.held_deliveries] == ["b1"]
    assert await ledger.states() == {"a1": "dropped:erased", "b1": "scored", "b2": "trained:9"}
    assert await streams.backlog(Stage.SCORED) == 1


async def test_the_version_that_learned_from_a_sample_erased_meanwhile_is_noted_for_its_owner(
    samples: OwnedSamples, consumer: MakeConsumer, ledger: Ledger, client: Redis, keys: RunKeys
) -> None:
    await samples.put("a1", ANN, Stage.SCORED)
    await samples.put("b1", BOB, Stage.SCORED)
    learner = consumer(Stage.SCORED)
    held = await learner.read(max_count=2, block_seconds=0)
    await samples.block(ANN, "erased")
    sweep_keys = rights.sweep_keys(keys, Stage.SCORED)
    swept = await rights.SWEEP.run(client, sweep_keys, [keys.group, "scored", ANN, "(returned)", "-", 50])
    assert swept == [b"", 1, 1, 1]
    pairs = [(delivery.entry_id, delivery.sample_id) for delivery in held]
    # Its own erasure takes the owner out of the ledger in between.
    await command(client, "HDEL", keys.ledger_owners, "a1")
    assert [await learner.finish(pairs, version=7), await learner.finish(pairs, version=7)] == [1, 0]
    assert await ledger.states() == {"a1": "dropped:erased", "b1": "trained:7"}
    assert await command(client, "SMEMBERS", keys.erased_versions(ANN)) == {b"7"}
    assert await command(client, "EXISTS", rights.in_training(keys)) == 0
    assert (await ledger.counts()).imbalance == 0
