"""The pool's two scripts on real Redis servers."""

import asyncio

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from onlinerlhf.core.errors import IdempotencyConflict, LimitReached
from onlinerlhf.core.samples import Prompt, Stage
from onlinerlhf.gateway.normalise import keyed_digest, text_digest
from onlinerlhf.gateway.pool import Limits, NewPrompt, Pool, Receipt
from onlinerlhf.gateway.refusals import Duplicate, PoolFull, UserCap
from onlinerlhf.runtime import wire
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger, LedgerCounts
from onlinerlhf.runtime.redis import Patience, away_reason, command
from redis_servers import redis_binaries

pytestmark = pytest.mark.parametrize("redis_binary", redis_binaries(), indirect=True)

KEY = b"a key for tests"


def limits(
    *, prompts_per_user: int = 200, pool_bound: int = 1000, prompts_bound: int = 100, max_epochs: int = 1
) -> Limits:
    return Limits(
        prompts_per_user=prompts_per_user,
        pool_bound=pool_bound,
        prompts_bound=prompts_bound,
        max_epochs=max_epochs,
        idempotency_seconds=86_400,
    )


def entry(text: str, *, sample_id: str, user: str = "ada", key: str | None = None) -> NewPrompt:
    prompt = Prompt(
        sample_id=sample_id,
        prompt_id=sample_id,
        user_id=user,
        text=text,
        token_ids=(1, 2, 3),
        epoch=0,
        admitted_at_seconds=1000.0,
    )
    return NewPrompt(
        prompt=prompt,
        user_digest=keyed_digest(user.encode(), KEY),
        idempotency_digest=keyed_digest(f"{user} {key or sample_id}".encode(), KEY),
        body_digest=keyed_digest(text.encode(), KEY),
        text_digest=text_digest(text, KEY),
    )


async def fed_samples(client: Redis, keys: RunKeys) -> list[str]:
    entries = await command(client, "XRANGE", keys.stream(Stage.PROMPTS), "-", "+")
    return [fields[b"id"].decode() for _, fields in entries]


async def balanced(client: Redis, keys: RunKeys) -> LedgerCounts:
    ledger = Ledger(client, keys)
    counts = await ledger.counts()
    assert counts == await ledger.audit()
    assert counts.imbalance == 0
    return counts


async def test_an_admitted_prompt_is_in_the_pool_and_in_the_ledger(client: Redis, keys: RunKeys) -> None:
    receipt = await Pool(client, keys, limits()).admit(entry("one", sample_id="s1"))
    assert (receipt.sample_id, receipt.replayed, receipt.num_prompt_tokens) == ("s1", False, 3)
    assert await client.lrange(keys.pool_new, 0, -1) == [b"s1"]
    assert await Ledger(client, keys).states() == {"s1": "pool"}
    assert wire.load_prompt(await command(client, "GET", keys.prompt("s1"))).text == "one"
    assert (await balanced(client, keys)).admitted == 1


async def test_a_retry_gets_the_first_receipt_and_makes_nothing(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits())
    await pool.admit(entry("one", sample_id="s1", key="k"))
    receipt = await pool.admit(entry("one", sample_id="s2", key="k"))
    assert (receipt.sample_id, receipt.replayed, receipt.num_prompt_tokens) == ("s1", True, 3)
    assert await Ledger(client, keys).states() == {"s1": "pool"}


async def test_a_script_run_twice_because_its_reply_was_lost_is_no_replay(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits())
    same = entry("one", sample_id="s1")
    await pool.admit(same)
    assert (await pool.admit(same)).replayed is False
    assert (await balanced(client, keys)).admitted == 1


async def test_a_key_used_with_another_text_is_a_conflict(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits())
    await pool.admit(entry("one", sample_id="s1", key="k"))
    with pytest.raises(IdempotencyConflict):
        await pool.admit(entry("two", sample_id="s2", key="k"))
    assert await Ledger(client, keys).states() == {"s1": "pool"}


async def test_two_users_may_choose_the_same_key(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits())
    await pool.admit(entry("one", sample_id="s1", user="ada", key="k"))
    await pool.admit(entry("two", sample_id="s2", user="bob", key="k"))
    assert (await balanced(client, keys)).admitted == 2


async def test_a_key_is_remembered_for_a_day(client: Redis, keys: RunKeys) -> None:
    first = entry("one", sample_id="s1")
    await Pool(client, keys, limits()).admit(first)
    assert 86_390 <= await client.ttl(keys.idempotency(first.idempotency_digest)) <= 86_400


async def test_a_duplicate_is_refused_whosever_it_is(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits())
    await pool.admit(entry("Name three.", sample_id="s1", user="ada"))
    for sample_id, user in (("s2", "ada"), ("s3", "bob")):
        with pytest.raises(Duplicate) as caught:
            await pool.admit(entry("name  THREE.", sample_id=sample_id, user=user))
        assert "ada" not in str(caught.value) and "three" not in str(caught.value).lower()
    assert await Ledger(client, keys).states() == {"s1": "pool"}


async def test_a_user_at_the_cap_is_refused_and_others_are_not(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits(prompts_per_user=2))
    await pool.admit(entry("one", sample_id="s1"))
    await pool.admit(entry("two", sample_id="s2"))
    with pytest.raises(UserCap):
        await pool.admit(entry("three", sample_id="s3"))
    await pool.admit(entry("three", sample_id="s4", user="bob"))
    assert (await pool.admit(entry("two", sample_id="s5", key="s2"))).replayed
    assert set(await Ledger(client, keys).states()) == {"s1", "s2", "s4"}


async def test_a_full_pool_refuses_and_has_room_again_once_fed(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits(pool_bound=1))
    await pool.admit(entry("one", sample_id="s1"))
    with pytest.raises(PoolFull):
        await pool.admit(entry("two", sample_id="s2"))
    assert (await pool.feed()).num_new == 1
    await pool.admit(entry("two", sample_id="s2"))
    assert (await balanced(client, keys)).pending == {"pool": 1, "prompts": 1, "rollouts": 0, "scored": 0}


async def test_a_cap_is_exact_under_many_at_once(client: Redis, keys: RunKeys, patience: Patience) -> None:
    pool = Pool(client, keys, limits(prompts_per_user=20))

    async def admit(number: int) -> Receipt:
        one = entry(f"text {number}", sample_id=f"s{number}")
        return await patience("admitting", lambda: pool.admit(one), give_up_seconds=20)

    outcomes = await asyncio.gather(*(admit(number) for number in range(50)), return_exceptions=True)
    assert sum(isinstance(outcome, LimitReached) for outcome in outcomes) == 30
    assert (await balanced(client, keys)).admitted == 20


async def test_no_key_tells_a_text_or_a_name(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits())
    await pool.admit(entry("secret", sample_id="s1", user="adalovelace", key="mykey"))
    async for name in client.scan_iter(match=keys.key("*")):
        assert not any(word in name for word in (b"secret", b"adalovelace", b"mykey"))
        if name.decode() != keys.prompt("s1"):
            value = await command(client, "DUMP", name)
            assert not any(word in value for word in (b"secret", b"adalovelace", b"mykey"))


async def test_gateways_that_are_given_no_hash_key_share_one(client: Redis, keys: RunKeys) -> None:
    first, second = Pool(client, keys, limits()), Pool(client, keys, limits())
    assert len(await first.hash_key()) == 32
    assert await first.hash_key() == await second.hash_key()
    assert await Pool(client, keys, limits(), hash_key=b"given").hash_key() == b"given"


async def test_feeding_keeps_the_order_and_stops_at_the_bound(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits(prompts_bound=2))
    for number in range(3):
        await pool.admit(entry(f"text {number}", sample_id=f"s{number}"))
    fed = await pool.feed()
    assert (fed.num_new, fed.num_reused, fed.num_waiting_new, fed.is_full) == (2, 0, 1, True)
    assert (await pool.feed()).num_moved == 0
    assert await fed_samples(client, keys) == ["s0", "s1"]
    (first, _), *_ = await command(client, "XRANGE", keys.stream(Stage.PROMPTS), "-", "+")
    await client.xdel(keys.stream(Stage.PROMPTS), first)
    assert (await pool.feed()).num_new == 1
    assert await fed_samples(client, keys) == ["s1", "s2"]


async def test_a_prompt_fed_for_the_last_time_is_forgotten(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits())
    await pool.admit(entry("one", sample_id="s1"))
    await pool.feed()
    assert await client.exists(keys.prompt("s1")) == 0
    assert await client.llen(keys.pool_reuse) == 0


async def test_epochs_come_round_by_round_after_all_that_is_new(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits(max_epochs=3))
    await pool.admit(entry("one", sample_id="a"))
    await pool.admit(entry("two", sample_id="b"))
    assert (await pool.feed()).num_new == 2
    await pool.admit(entry("three", sample_id="c"))
    assert (await pool.feed()).num_new == 1
    num_reused = 0
    while (fed := await pool.feed()).num_moved:
        num_reused += fed.num_reused
    assert num_reused == 6
    assert await fed_samples(client, keys) == ["a", "b", "c", "a.1", "b.1", "c.1", "a.2", "b.2", "c.2"]
    assert (await balanced(client, keys)).admitted == 9
    assert await client.exists(*(keys.prompt(name) for name in "abc")) == 0


async def test_another_epoch_is_a_sample_of_its_own_with_the_same_prompt(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits(max_epochs=2))
    await pool.admit(entry("one", sample_id="a"))
    await pool.feed()
    await pool.feed()
    _, (_, fields) = await command(client, "XRANGE", keys.stream(Stage.PROMPTS), "-", "+")
    prompt = wire.load_prompt(fields[b"data"])
    assert (prompt.sample_id, prompt.prompt_id, prompt.epoch) == ("a.1", "a", 1)
    assert (prompt.text, prompt.token_ids) == ("one", (1, 2, 3))
    assert prompt.admitted_at_seconds > 1000.0
    assert await Ledger(client, keys).states() == {"a": "prompts", "a.1": "prompts"}


async def test_epochs_beyond_a_lowered_bound_are_forgotten(client: Redis, keys: RunKeys) -> None:
    before = Pool(client, keys, limits(max_epochs=3))
    await before.admit(entry("one", sample_id="a"))
    await before.feed()
    await before.feed()
    assert await client.lrange(keys.pool_reuse, 0, -1) == [b"a.2"]
    assert (await Pool(client, keys, limits(max_epochs=2)).feed()).num_moved == 0
    assert await client.llen(keys.pool_reuse) == 0
    assert await client.exists(keys.prompt("a")) == 0
    assert (await balanced(client, keys)).admitted == 2


async def test_several_feeders_feed_each_sample_once_and_never_beyond_the_bound(client: Redis, keys: RunKeys) -> None:
    pools = [Pool(client, keys, limits(prompts_bound=150, max_epochs=2)) for _ in range(4)]
    for number in range(100):
        await pools[0].admit(entry(f"text {number}", sample_id=f"s{number:03}"))
    for _ in range(6):
        await asyncio.gather(*(pool.feed() for pool in pools))
    samples = await fed_samples(client, keys)
    assert len(samples) == len(set(samples)) == 150
    assert samples[:100] == [f"s{number:03}" for number in range(100)]
    assert (await balanced(client, keys)).admitted == 150


async def test_without_memory_nothing_is_half_admitted_and_the_pool_still_drains(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits())
    await pool.admit(entry("one", sample_id="s1"))
    await client.config_set("maxmemory", 1)
    try:
        with pytest.raises(ResponseError) as caught:
            await pool.admit(entry("two", sample_id="s2"))
        assert away_reason(caught.value) == "Redis is out of memory (maxmemory)"
        assert (await pool.feed()).num_new == 1
    finally:
        await client.config_set("maxmemory", 0)
    assert await Ledger(client, keys).states() == {"s1": "prompts"}
    assert (await pool.admit(entry("two", sample_id="s2"))).replayed is False
    assert (await balanced(client, keys)).admitted == 2
