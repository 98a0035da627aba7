"""The pool's feeding on real Redis servers: whose prompt is next, and what leaves the pool otherwise."""

import asyncio

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from onlinerlhf.core.samples import Stage
from onlinerlhf.gateway.admission.offers import Verdict
from onlinerlhf.gateway.admission.pool import Limits, Pool
from onlinerlhf.runtime import wire
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger, LedgerCounts
from onlinerlhf.runtime.redis import away_reason, command
from redis_servers import redis_binaries
from trainables import DIGESTS, SHOWN_AT, a_caller, a_trainable

pytestmark = pytest.mark.parametrize("redis_binary", redis_binaries(), indirect=True)


def limits(
    *, prompts_per_user: int = 200, pool_bound: int = 1000, prompts_bound: int = 100, max_epochs: int = 1
) -> Limits:
    return Limits(
        prompts_per_user=prompts_per_user,
        pool_bound=pool_bound,
        prompts_bound=prompts_bound,
        max_epochs=max_epochs,
        retention_seconds=86_400,
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


async def fill(pool: Pool, names: str, *, user: str = "ada", organisation: str = "") -> None:
    """One prompt a letter."""
    for name in names:
        prompt = a_trainable(f"about {name}", sample_id=name, user=user, organisation=organisation)
        assert await pool.admit(prompt) is Verdict.ADMITTED


async def test_a_full_pool_refuses_and_has_room_again_once_fed(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits(pool_bound=1))
    await fill(pool, "a")
    assert await pool.admit(a_trainable("two", sample_id="b")) is Verdict.POOL_FULL
    assert (await pool.feed()).num_new == 1
    assert await pool.admit(a_trainable("two", sample_id="b")) is Verdict.ADMITTED
    assert (await balanced(client, keys)).pending == {"pool": 1, "prompts": 1, "rollouts": 0, "scored": 0}


async def test_feeding_keeps_the_order_and_stops_at_the_bound(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits(prompts_bound=2))
    await fill(pool, "abc")
    fed = await pool.feed()
    assert (fed.num_new, fed.num_reused, fed.num_waiting_new, fed.is_full) == (2, 0, 1, True)
    assert (await pool.feed()).is_idle
    assert await fed_samples(client, keys) == ["a", "b"]
    (first, _), *_ = await command(client, "XRANGE", keys.stream(Stage.PROMPTS), "-", "+")
    await client.xdel(keys.stream(Stage.PROMPTS), first)
    assert (await pool.feed()).num_new == 1
    assert await fed_samples(client, keys) == ["b", "c"]


async def test_tenants_take_turns_however_much_one_of_them_sends(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits())
    await fill(pool, "ABCDEFGHIJKLMN", organisation="loud")
    await fill(pool, "xyz", organisation="quiet")
    await pool.feed()
    samples = await fed_samples(client, keys)
    assert len(samples) == 17
    assert {"x", "y", "z"} <= set(samples[:6])


async def test_a_tenant_is_an_organisation_or_else_a_user(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits())
    await fill(pool, "ab", user="ada", organisation="acme")
    await fill(pool, "cd", user="bob", organisation="acme")
    await fill(pool, "ef", user="ada")
    await fill(pool, "gh", user="bob")
    await pool.feed()
    samples = await fed_samples(client, keys)
    assert len(set(samples[:3]) & set("abcd")) == 1


async def test_who_comes_late_starts_level_with_the_least_served(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits(prompts_bound=8))
    await fill(pool, "abcdefghijklm", organisation="early")
    assert (await pool.feed()).num_new == 8
    await client.delete(keys.stream(Stage.PROMPTS))
    await fill(pool, "pqrs", organisation="late")
    await pool.feed()
    assert set((await fed_samples(client, keys))[:4]) == set("ijpq")


async def test_idling_earns_no_credit(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits(prompts_bound=9))
    await fill(pool, "abcdefghijklm", organisation="busy")
    await fill(pool, "z", organisation="idle")
    assert (await pool.feed()).num_new == 9
    await client.delete(keys.stream(Stage.PROMPTS))
    # It had one sample to the other's eight, and nothing more to send when its turns came.
    await fill(pool, "pqrst", organisation="idle")
    await pool.feed()
    assert set((await fed_samples(client, keys))[:4]) == set("ijpq")


async def test_a_tenant_that_empties_its_list_for_a_moment_does_not_start_anew(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits(prompts_bound=4))
    await fill(pool, "abcd", organisation="loud")
    await fill(pool, "w", organisation="quiet")
    stream = keys.stream(Stage.PROMPTS)
    assert (await pool.feed()).num_new == 4
    await client.delete(stream)
    # One of the loud waits still; the quiet one had one and comes back with three: it has them first.
    await fill(pool, "xyz", organisation="quiet")
    await fill(pool, "efg", organisation="loud")
    await pool.feed()
    assert set(await fed_samples(client, keys)) >= {"x", "y"}
    assert (await balanced(client, keys)).admitted == 11


async def test_a_hundred_tenants_get_one_each_before_any_gets_two(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits(prompts_bound=100))
    for number in range(100):
        for part in (1, 2):
            prompt = a_trainable(f"{part} of {number}", sample_id=f"{number:03}-{part}", user=f"user {number}")
            assert await pool.admit(prompt) is Verdict.ADMITTED
    while (await pool.feed()).num_moved:
        pass
    samples = await fed_samples(client, keys)
    assert sorted(samples) == [f"{number:03}-1" for number in range(100)]


async def test_a_record_outlives_feeding_until_it_is_too_old(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits())
    await fill(pool, "a")
    await pool.feed()
    assert 86_390 <= await client.ttl(keys.prompt("a")) <= 86_400
    assert await client.llen(keys.pool_reuse) == 0


async def test_what_is_no_longer_in_the_pool_is_passed_over(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits())
    await fill(pool, "abc")
    await command(client, "HSET", keys.ledger_states, "a", "dropped:erased")
    await command(client, "HINCRBY", keys.ledger_counts, "pool", -1)
    await command(client, "HINCRBY", keys.ledger_counts, "dropped:erased", 1)
    await client.delete(keys.prompt("b"))
    fed = await pool.feed()
    assert (fed.num_new, fed.num_skipped) == (1, 2)
    assert await fed_samples(client, keys) == ["c"]
    assert (await balanced(client, keys)).dropped == {"erased": 1, "expired": 1}


@pytest.mark.parametrize("word", ["erased", "withdrawn"])
async def test_a_blocked_owners_prompts_are_dropped_when_their_turn_comes(
    client: Redis, keys: RunKeys, word: str
) -> None:
    pool = Pool(client, keys, limits(max_epochs=2))
    await fill(pool, "abc", user="ada")
    await fill(pool, "x", user="bob")
    blocked = word if word == "erased" else f"withdrawn:{int(SHOWN_AT)}"
    await command(client, "HSET", keys.blocked, a_caller("ada").owner, blocked)
    fed = await pool.feed()
    assert (fed.num_new, fed.num_skipped) == (1, 3)
    assert await fed_samples(client, keys) == ["x"]
    assert (await balanced(client, keys)).dropped == {word: 3}


async def test_a_further_epoch_is_not_begun_once_its_owner_is_blocked(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits(max_epochs=3))
    await fill(pool, "a", user="ada")
    await fill(pool, "b", user="bob")
    await pool.feed()
    await command(client, "HSET", keys.blocked, a_caller("ada").owner, "erased")
    fed = await pool.feed()
    assert (fed.num_reused, fed.num_skipped) == (1, 1)
    assert set(await Ledger(client, keys).states()) == {"a", "b", "b.1"}
    assert await command(client, "HGET", keys.ledger_owners, "b.1") == (
        f"{a_caller('bob').owner}|{int(SHOWN_AT)}".encode()
    )


async def test_epochs_come_round_by_round_after_all_that_is_new(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits(max_epochs=3))
    await fill(pool, "ab")
    assert (await pool.feed()).num_new == 2
    await fill(pool, "c")
    assert (await pool.feed()).num_new == 1
    num_reused = 0
    while (fed := await pool.feed()).num_moved:
        num_reused += fed.num_reused
    assert num_reused == 6
    assert await fed_samples(client, keys) == ["a", "b", "c", "a.1", "b.1", "c.1", "a.2", "b.2", "c.2"]
    assert (await balanced(client, keys)).admitted == 9


async def test_another_epoch_is_a_sample_of_its_own_with_the_same_prompt(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits(max_epochs=2))
    await fill(pool, "a")
    await pool.feed()
    await pool.feed()
    _, (_, fields) = await command(client, "XRANGE", keys.stream(Stage.PROMPTS), "-", "+")
    prompt = wire.load_prompt(fields[b"data"])
    assert (prompt.sample_id, prompt.prompt_id, prompt.epoch) == ("a.1", "a", 1)
    assert (prompt.text, prompt.token_ids, prompt.owner) == ("about a", (1, 2, 3), a_caller().owner)
    assert prompt.admitted_at_seconds > SHOWN_AT
    assert await Ledger(client, keys).states() == {"a": "prompts", "a.1": "prompts"}


async def test_epochs_beyond_a_lowered_bound_are_forgotten(client: Redis, keys: RunKeys) -> None:
    before = Pool(client, keys, limits(max_epochs=3))
    await fill(before, "a")
    await before.feed()
    await before.feed()
    assert await client.lrange(keys.pool_reuse, 0, -1) == [b"a.2"]
    assert (await Pool(client, keys, limits(max_epochs=2)).feed()).num_moved == 0
    assert await client.llen(keys.pool_reuse) == 0
    assert (await balanced(client, keys)).admitted == 2


async def test_several_feeders_feed_each_sample_once_and_never_beyond_the_bound(client: Redis, keys: RunKeys) -> None:
    pools = [Pool(client, keys, limits(prompts_bound=150, max_epochs=2)) for _ in range(4)]
    for number in range(100):
        user = f"user {number % 7}"
        prompt = a_trainable(f"text {number}", sample_id=f"s{number:03}", user=user)
        assert await pools[0].admit(prompt) is Verdict.ADMITTED
    while any(fed.num_moved for fed in await asyncio.gather(*(pool.feed() for pool in pools))):
        pass
    samples = await fed_samples(client, keys)
    assert len(samples) == len(set(samples)) == 150
    assert sorted(samples[:100]) == [f"s{number:03}" for number in range(100)]
    assert (await balanced(client, keys)).admitted == 150


async def test_without_memory_nothing_is_half_admitted_and_the_pool_still_drains(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits(prompts_per_user=1))
    await pool.admit(a_trainable("one", sample_id="s1", score=9))
    await client.config_set("maxmemory", 1)
    try:
        # The second would displace the first.
        for _ in range(2):
            with pytest.raises(ResponseError) as caught:
                await pool.admit(a_trainable("two", sample_id="s2", score=1))
            assert away_reason(caught.value) == "Redis is out of memory (maxmemory)"
        assert (await pool.feed()).num_new == 1
    finally:
        await client.config_set("maxmemory", 0)
    assert await Ledger(client, keys).states() == {"s1": "prompts"}
    assert await pool.admit(a_trainable("two", sample_id="s3", user="bob")) is Verdict.ADMITTED
    assert (await balanced(client, keys)).admitted == 2


async def test_no_key_or_index_tells_a_text_or_a_name(client: Redis, keys: RunKeys) -> None:
    pool = Pool(client, keys, limits())
    await pool.admit(a_trainable("secret" * 50, sample_id="s1", user="adalovelace", organisation="acmecorp"))
    async for name in client.scan_iter(match=keys.key("*")):
        assert not any(word in name for word in (b"secret", b"adalovelace", b"acmecorp"))
        if name.decode() != keys.prompt("s1"):
            value = await command(client, "DUMP", name)
            assert not any(word in value for word in (b"secret", b"adalovelace", b"acmecorp"))
    assert DIGESTS.owner("acmecorp", "adalovelace") == a_caller("adalovelace", organisation="acmecorp").owner
