"""Erasing a user: what goes, what stays, what the receipt says, and that a second look finds whatever was left."""

import asyncio
import re

import pytest
from redis.asyncio import Redis

from integration.owned_samples import ACME, ANN, BOB, HASH_KEY, SHOWN_AT, OwnedSamples
from onlinerlhf.core.samples import Stage
from onlinerlhf.gateway.access.identity import HashKey
from onlinerlhf.gateway.rights.erasure import Erasure
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.redis import Patience, command
from onlinerlhf.runtime.streams import Consumer, Streams
from redis_servers import redis_binaries

pytestmark = pytest.mark.parametrize("redis_binary", redis_binaries(), indirect=True)


@pytest.fixture
async def streams(client: Redis, keys: RunKeys) -> Streams:
    """The run's streams, made."""
    streams = Streams(client, keys)
    await streams.ensure_groups()
    return streams


@pytest.fixture
def ledger(client: Redis, keys: RunKeys) -> Ledger:
    """The run's ledger."""
    return Ledger(client, keys)


@pytest.fixture
def samples(client: Redis, keys: RunKeys, streams: Streams) -> OwnedSamples:
    """Puts them anywhere."""
    return OwnedSamples(client, keys)


@pytest.fixture
def erasure(client: Redis, keys: RunKeys, patience: Patience) -> Erasure:
    """Of this run."""
    return Erasure(client, keys, HashKey(client, keys, HASH_KEY), patience)


def _consumer(client: Redis, keys: RunKeys, patience: Patience, stage: Stage, name: str) -> Consumer:
    return Consumer(client, keys, stage, name=name, patience=patience)


async def _everywhere(samples: OwnedSamples, owner: str, letter: str) -> None:
    """A sample in each place, and one that was trained and waits for another pass."""
    await samples.put(f"{letter}-pool", owner, Stage.POOL)
    await samples.put(f"{letter}-prompts", owner, Stage.PROMPTS)
    await samples.put(f"{letter}-rollouts", owner, Stage.ROLLOUTS)
    await samples.put(f"{letter}-scored", owner, Stage.SCORED)
    await samples.put_for_reuse(f"{letter}-trained.1", owner)


async def test_a_user_is_erased_from_every_stage_and_others_are_left_alone(
    samples: OwnedSamples, erasure: Erasure, ledger: Ledger, streams: Streams, client: Redis, keys: RunKeys
) -> None:
    await _everywhere(samples, ANN, "a")
    await _everywhere(samples, BOB, "b")
    assert (await erasure.verify("acme", "bob")).num_left["streams"] == 3
    receipt = await erasure.erase("acme", "ann")
    assert re.fullmatch("[0-9a-f]{32}", receipt.receipt_id)
    assert receipt.num_samples_dropped == 4
    assert receipt.policy_versions == (3,)
    assert receipt.num_samples_in_training == 0
    assert receipt.num_removed == {"dedup": 10, "ledger": 5, "pool": 1, "records": 5, "replay": 1, "streams": 3}
    states = await ledger.states()
    assert {sample: state for sample, state in states.items() if sample.startswith("a")} == {
        "a-pool": "dropped:erased",
        "a-prompts": "dropped:erased",
        "a-rollouts": "dropped:erased",
        "a-scored": "dropped:erased",
        "a-trained": "trained:3",
    }
    assert states["b-pool"] == "pool" and states["b-scored"] == "scored"
    counts = await ledger.counts()
    assert (counts.imbalance, counts.dropped, counts.trained) == (0, {"erased": 4}, 2)
    assert counts == await ledger.audit()
    assert await streams.backlogs() == {Stage.PROMPTS: 1, Stage.ROLLOUTS: 1, Stage.SCORED: 1}
    assert await command(client, "LRANGE", keys.pool_new(ACME), 0, -1) == [b"b-pool"]
    assert await command(client, "ZCARD", keys.prompts_by_age) == 5
    assert await command(client, "HLEN", keys.dedup) == 10
    verification = await erasure.verify("acme", "ann")
    assert (verification.num_left, verification.policy_versions) == ({}, (3,))
    assert verification.num_keys_scanned > 10
    assert [each.receipt_id for each in await erasure.receipts("acme", "ann")] == [receipt.receipt_id]


async def test_erasing_twice_finds_nothing_and_names_the_same_versions(samples: OwnedSamples, erasure: Erasure) -> None:
    await _everywhere(samples, ANN, "a")
    first = await erasure.erase("acme", "ann")
    second = await erasure.erase("acme", "ann")
    assert (dict(second.num_removed), second.num_samples_dropped) == ({}, 0)
    assert (second.policy_versions, second.erased_at_seconds) == ((3,), first.erased_at_seconds)
    assert second.receipt_id != first.receipt_id
    assert await erasure.receipts("acme", "ann") == [first, second]


async def test_two_erasures_at_once_count_each_sample_once(
    samples: OwnedSamples, erasure: Erasure, ledger: Ledger
) -> None:
    for number in range(300):
        await samples.put(f"a{number}", ANN, (Stage.POOL, Stage.PROMPTS, Stage.SCORED)[number % 3])
    both = await asyncio.gather(erasure.erase("acme", "ann"), erasure.erase("acme", "ann"))
    assert sum(receipt.num_samples_dropped for receipt in both) == 300
    assert (await erasure.verify("acme", "ann")).num_left == {}
    assert (await ledger.counts()).dropped == {"erased": 300}


async def test_an_unknown_user_is_erased_beforehand(erasure: Erasure, client: Redis, keys: RunKeys) -> None:
    receipt = await erasure.erase("acme", "ann")
    assert (dict(receipt.num_removed), receipt.policy_versions) == ({}, ())
    assert await command(client, "HGET", keys.blocked, ANN) == b"erased"


async def test_the_same_name_at_another_organisation_is_another_user(samples: OwnedSamples, erasure: Erasure) -> None:
    await samples.put("a1", ANN, Stage.PROMPTS)
    for organisation in ("", "other"):
        assert (await erasure.erase(organisation, "ann")).num_samples_dropped == 0
    assert (await erasure.verify("acme", "ann")).num_left["streams"] == 1


async def test_a_sample_being_generated_when_its_user_is_erased_goes_nowhere(
    samples: OwnedSamples,
    erasure: Erasure,
    ledger: Ledger,
    streams: Streams,
    client: Redis,
    keys: RunKeys,
    patience: Patience,
) -> None:
    await samples.put("a1", ANN, Stage.PROMPTS)
    await samples.put("b1", BOB, Stage.PROMPTS)
    async with _consumer(client, keys, patience, Stage.PROMPTS, "rollout-0") as worker:
        ann, bob = await worker.read(max_count=2, block_seconds=0)
        receipt = await erasure.erase("acme", "ann")
        assert (receipt.num_samples_dropped, receipt.num_samples_in_training) == (1, 0)
        assert not await worker.hand_over(ann, b"what was generated for ann " + ANN.encode())
        assert await worker.hand_over(bob, b"rollouts")
        assert worker.held == 0
    assert await ledger.states() == {"a1": "dropped:erased", "b1": "rollouts"}
    assert await streams.dead_letters(Stage.PROMPTS, 10) == []
    assert (await erasure.verify("acme", "ann")).num_left == {}
    assert (await ledger.counts()).imbalance == 0


async def test_tries_errors_and_dead_letters_of_a_user_go_too(
    samples: OwnedSamples, erasure: Erasure, streams: Streams, client: Redis, keys: RunKeys, patience: Patience
) -> None:
    await samples.put("a1", ANN, Stage.ROLLOUTS)
    await samples.put("a2", ANN, Stage.ROLLOUTS)
    worker = _consumer(client, keys, patience, Stage.ROLLOUTS, "reward")
    first, second = await worker.read(max_count=2, block_seconds=0)
    await worker.dead_letter(first, "EngineError")
    await worker.retry_later(second, "EngineError")
    receipt = await erasure.erase("acme", "ann")
    assert receipt.num_removed["dead_letters"] == 1
    assert await streams.dead_letters(Stage.ROLLOUTS, 10) == []
    left = {name.decode() for name in await command(client, "KEYS", keys.key("*"))}
    assert not left & {keys.attempts(Stage.ROLLOUTS), keys.errors(Stage.ROLLOUTS)}


PLANTED = {
    "name": (("SET", "answers:{owner}", "x"), "answers"),
    "string": (("SET", "feedback:f1", "\x00\x0a\x20{owner}"), "feedback"),
    "record": (("HSET", "receipt:r1", "owner", "{owner}", "key_id", "k"), "receipts"),
    "hash_field": (("HSET", "limits:users", "{owner}", "3", "other", "4"), "limits"),
    "hash_value": (("HSET", "idempotency:i1", "body", "by {owner}"), "idempotency"),
    "list": (("RPUSH", "pool:odd", "one", "{owner}.2"), "pool"),
    "set": (("SADD", "seen", "one", "user={owner}"), "seen"),
    "zset": (("ZADD", "prompts_of:all", 1, "{owner}", 2, "other"), "records"),
    "work_stream": (("XADD", "stream:rollouts", "*", "id", "unknown", "data", "\x1a\x20{owner}\x22"), "streams"),
    "dead_letter": (("XADD", "stream:scored.dead", "*", "sample", "s", "error", "{owner}"), "dead_letters"),
}
"""A leftover of each type -> the store that it is reported under."""


@pytest.mark.parametrize("kind", PLANTED)
async def test_a_planted_leftover_is_found_and_the_next_erasure_takes_it_and_nothing_else(
    samples: OwnedSamples, erasure: Erasure, client: Redis, keys: RunKeys, kind: str
) -> None:
    await samples.put("a1", ANN, Stage.PROMPTS)
    await samples.put("b1", BOB, Stage.PROMPTS)
    await erasure.erase("acme", "ann")
    assert (await erasure.verify("acme", "ann")).num_left == {}
    before = await _dump(client, keys)
    (name, key, *rest), store = PLANTED[kind]
    words = [word.format(owner=ANN) if isinstance(word, str) else word for word in (key, *rest)]
    await command(client, name, keys.key(str(words[0])), *words[1:])
    assert (await erasure.verify("acme", "ann")).num_left == {store: 1}
    assert (await erasure.verify("acme", "bob")).num_left["streams"] == 1
    await erasure.erase("acme", "ann")
    assert (await erasure.verify("acme", "ann")).num_left == {}
    after = await _dump(client, keys)
    assert before.items() <= after.items()
    if kind == "hash_field":
        assert await command(client, "HGETALL", keys.key("limits:users")) == {b"other": b"4"}


async def _dump(client: Redis, keys: RunKeys) -> dict[bytes, bytes]:
    """All keys but the tombstones and streams, whose serialised form counts what was ever added."""
    names = [name for name in await command(client, "KEYS", keys.key("*")) if b":erased:" not in name]
    return {name: await command(client, "DUMP", name) for name in names if b":stream:" not in name}


async def test_leftovers_are_found_in_big_stores_page_by_page(erasure: Erasure, client: Redis, keys: RunKeys) -> None:
    others = [f"{number:032x}" for number in range(2000)]
    members = [*others[:777], ANN, *others[777:]]
    await command(client, "RPUSH", keys.key("big", "list"), *members, ANN)
    await command(client, "SADD", keys.key("big", "set"), *members)
    await command(client, "ZADD", keys.key("big", "zset"), *(part for each in members for part in (1, each)))
    await command(client, "HSET", keys.key("big", "hash"), *(part for each in members for part in (each, "1")))
    for each in members:
        await command(client, "XADD", keys.key("big", "stream"), "*", "whose", each)
    assert (await erasure.verify("acme", "ann")).num_left == {"big": 6}
    assert (await erasure.erase("acme", "ann")).num_removed == {"big": 6}
    assert (await erasure.verify("acme", "ann")).num_left == {}
    sizes = [await command(client, name, keys.key("big", kind)) for name, kind in _SIZES]
    assert sizes == [2000] * 5


_SIZES = (("LLEN", "list"), ("SCARD", "set"), ("ZCARD", "zset"), ("HLEN", "hash"), ("XLEN", "stream"))


@pytest.mark.parametrize("num_calls", [1, 2, 3, 5, 8, 9, 10, 12, 14, 16, 20])
async def test_an_erasure_broken_off_anywhere_is_completed_by_the_next(
    samples: OwnedSamples,
    erasure: Erasure,
    ledger: Ledger,
    client: Redis,
    keys: RunKeys,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
    num_calls: int,
) -> None:
    await _everywhere(samples, ANN, "a")

    class Crash(Exception):
        pass

    with monkeypatch.context() as patched:
        call, done = erasure._call, 0

        async def crashing(what: str, each: object) -> object:
            nonlocal done
            done += 1
            if done > num_calls:
                raise Crash
            return await call(what, each)  # type: ignore[arg-type]

        patched.setattr(erasure, "_call", crashing)
        with pytest.raises(Crash):
            await erasure.erase("acme", "ann")
    if num_calls >= 2:
        assert await command(client, "HGET", keys.blocked, ANN) == b"erased"
        for stage in (Stage.PROMPTS, Stage.ROLLOUTS, Stage.SCORED):
            worker = _consumer(client, keys, patience, stage, "any")
            assert await worker.read(max_count=10, block_seconds=0) == []
    receipt = await erasure.erase("acme", "ann")
    assert receipt.policy_versions == (3,)
    assert (await erasure.verify("acme", "ann")).num_left == {}
    counts = await ledger.counts()
    assert (counts.imbalance, counts.dropped, counts.trained) == (0, {"erased": 4}, 1)
    assert counts == await ledger.audit()
    assert not [name for name in await command(client, "KEYS", keys.key("*")) if b"a-trained" in name]
    assert await command(client, "HLEN", keys.dedup) == 0


@pytest.mark.parametrize("stage", [Stage.POOL, Stage.PROMPTS, Stage.ROLLOUTS, Stage.SCORED])
async def test_withdrawn_consent_takes_what_waits_in_any_stage(
    samples: OwnedSamples,
    erasure: Erasure,
    ledger: Ledger,
    streams: Streams,
    client: Redis,
    keys: RunKeys,
    stage: Stage,
) -> None:
    await samples.put("a1", ANN, stage)
    await samples.put("b1", BOB, stage)
    assert await erasure.withdraw(ANN) == 1
    assert await ledger.states() == {"a1": "dropped:withdrawn", "b1": stage}
    assert (await ledger.counts()).dropped == {"withdrawn": 1}
    assert await erasure.withdraw(ANN) == 0
    assert await command(client, "EXISTS", keys.prompt("b1")) == 1
    if stage is Stage.POOL:
        assert await command(client, "LRANGE", keys.pool_new(ACME), 0, -1) == [b"b1"]
        assert await command(client, "EXISTS", keys.prompt("a1")) == 0
    else:
        assert await streams.backlog(stage) == 1


async def test_withdrawal_reaches_the_replay_store_and_spares_what_is_consented_to_later(
    samples: OwnedSamples, erasure: Erasure, ledger: Ledger, client: Redis, keys: RunKeys
) -> None:
    await samples.put_for_reuse("a1.1", ANN)
    await samples.put_for_reuse("b1.1", BOB)
    assert await erasure.withdraw(ANN) == 0
    assert await command(client, "LRANGE", keys.pool_reuse, 0, -1) == [b"b1.1"]
    second = int((await command(client, "HGET", keys.blocked, ANN)).partition(b":")[2])
    assert abs(second - (await command(client, "TIME"))[0]) <= 2
    await samples.put("a2", ANN, Stage.PROMPTS, shown_at=second + 1)
    await samples.put("a3", ANN, Stage.PROMPTS, shown_at=second)
    assert (await ledger.state("a1"), await ledger.state("a2")) == ("trained:3", "prompts")
    # A sweep that comes late spares what is new.
    assert (await erasure._sweep(ANN)).num_dropped == 1
    assert (await ledger.state("a2"), await ledger.state("a3")) == ("prompts", "dropped:withdrawn")


async def test_withdrawal_after_erasure_leaves_the_tombstone(erasure: Erasure, client: Redis, keys: RunKeys) -> None:
    await erasure.erase("acme", "ann")
    await erasure.withdraw(ANN)
    assert await command(client, "HGET", keys.blocked, ANN) == b"erased"


async def test_an_erasure_after_a_withdrawal_that_was_not_swept_drops_as_erased(
    samples: OwnedSamples, ledger: Ledger, erasure: Erasure
) -> None:
    await samples.put("a1", ANN, Stage.PROMPTS)
    await samples.block(ANN, f"withdrawn:{SHOWN_AT}")
    receipt = await erasure.erase("acme", "ann")
    assert receipt.num_samples_dropped == 1
    assert await ledger.states() == {"a1": "dropped:erased"}
