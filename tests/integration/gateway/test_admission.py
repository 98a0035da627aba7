"""Admission on real Redis servers: one script decides, so every count is exact however many gateways there are."""

import asyncio
import itertools
import random
from collections import Counter

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from onlinerlhf.core.errors import StartupError
from onlinerlhf.core.samples import Stage
from onlinerlhf.gateway.access.identity import Digests, HashKey
from onlinerlhf.gateway.admission.offers import Verdict
from onlinerlhf.gateway.admission.pool import Limits, Pool, dedup_of, held_out
from onlinerlhf.gateway.admission.splits import Split, Splits, check_lineage
from onlinerlhf.runtime import redis, wire
from onlinerlhf.runtime.batches import Batcher
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import LUA_TRANSITION, Ledger, LedgerCounts
from onlinerlhf.runtime.redis import Script, command
from redis_servers import redis_binaries
from trainables import DIGESTS, SHOWN_AT, a_caller, a_trainable

pytestmark = pytest.mark.parametrize("redis_binary", redis_binaries(), indirect=True)

ADA = a_caller("ada").owner


def pool_of(client: Redis | Batcher, keys: RunKeys, *, prompts_per_user: int = 200, pool_bound: int = 1000) -> Pool:
    limits = Limits(
        prompts_per_user=prompts_per_user,
        pool_bound=pool_bound,
        prompts_bound=1000,
        max_epochs=1,
        retention_seconds=86_400,
    )
    return Pool(client, keys, limits)  # type: ignore[arg-type]


@pytest.fixture
def pool(client: Redis, keys: RunKeys) -> Pool:
    """With the recipe's cap."""
    return pool_of(client, keys)


async def balanced(client: Redis, keys: RunKeys) -> LedgerCounts:
    ledger = Ledger(client, keys)
    counts = await ledger.counts()
    assert counts == await ledger.audit()
    assert counts.imbalance == 0
    return counts


async def in_pool(client: Redis, keys: RunKeys) -> set[str]:
    return {sample for sample, state in (await Ledger(client, keys).states()).items() if state == Stage.POOL}


async def test_an_admitted_prompt_is_in_pool_ledger_and_indices_with_its_owners_proof(
    client: Redis, keys: RunKeys, pool: Pool
) -> None:
    assert await pool.admit(a_trainable("one", sample_id="s1", score=7)) is Verdict.ADMITTED
    assert await client.lrange(keys.pool_new(a_caller("ada").tenant), 0, -1) == [b"s1"]
    assert await Ledger(client, keys).states() == {"s1": "pool"}
    assert await client.hgetall(keys.ledger_owners) == {b"s1": f"{ADA}|{int(SHOWN_AT)}".encode()}
    assert wire.load_prompt(await command(client, "GET", keys.prompt("s1"))).text == "one"
    assert 86_390 <= await client.ttl(keys.prompt("s1")) <= 86_400
    assert await client.zrange(keys.prompts_of(ADA), 0, -1, withscores=True) == [(b"s1", 7.0)]
    assert float(await command(client, "ZSCORE", keys.prompts_by_age, "s1")) > SHOWN_AT
    assert (await balanced(client, keys)).admitted == 1


async def test_a_script_run_twice_because_its_reply_was_lost_admits_once(
    client: Redis, keys: RunKeys, pool: Pool
) -> None:
    same, kept = a_trainable("one", sample_id="s1"), a_trainable("two", sample_id="s2", split=Split.TEST)
    for _ in range(2):
        assert await pool.admit(same) is Verdict.ADMITTED
        assert await pool.admit(kept) is Verdict.HELD_OUT
    await pool.feed()
    assert await pool.admit(same) is Verdict.ADMITTED
    assert (await balanced(client, keys)).admitted == 1


async def test_the_ledger_takes_no_sample_without_proof_of_consent(client: Redis, keys: RunKeys) -> None:
    script = Script(
        LUA_TRANSITION
        + "ledger_admit(KEYS[1], KEYS[2], KEYS[3], 's1', 'pool', ARGV[1]) redis.call('SET', KEYS[1] .. 'x', 1)"
    )
    names = [keys.ledger_states, keys.ledger_counts, keys.ledger_owners]
    for proof in ("", "|5", f"{ADA}|", f"{ADA}|x", f"{ADA[1:]}|5", f"{ADA} |5", f"{ADA}|5.5"):
        with pytest.raises(ResponseError, match="no proof of consent"):
            await script.run(client, names, [proof])
    async for name in client.scan_iter(match=keys.key("*")):
        raise AssertionError(f"{name!r} was written")


@pytest.mark.parametrize(
    ("word", "verdict"),
    [
        ("erased", Verdict.ERASED),
        (f"withdrawn:{int(SHOWN_AT)}", Verdict.WITHDRAWN),
        (f"withdrawn:{int(SHOWN_AT) + 1}", Verdict.WITHDRAWN),
        ("a word of a later version", Verdict.WITHDRAWN),
        (f"withdrawn:{int(SHOWN_AT) - 1}", Verdict.ADMITTED),
    ],
)
async def test_consent_that_was_withdrawn_since_or_whose_owner_is_erased_does_not_count(
    client: Redis, keys: RunKeys, pool: Pool, word: str, verdict: Verdict
) -> None:
    await command(client, "HSET", keys.blocked, ADA, word)
    assert await pool.admit(a_trainable("one", sample_id="s1")) is verdict
    assert await pool.admit(a_trainable("two", sample_id="s2", user="bob")) is Verdict.ADMITTED


async def test_consent_dated_ahead_by_a_fast_clock_does_not_outlive_a_withdrawal(
    client: Redis, keys: RunKeys, pool: Pool
) -> None:
    seconds, _ = await client.time()
    assert await pool.admit(a_trainable("one", sample_id="s1", shown_at=seconds + 50.0)) is Verdict.ADMITTED
    _, _, shown = (await command(client, "HGET", keys.ledger_owners, "s1")).decode().partition("|")
    assert int(shown) <= seconds + 2
    await command(client, "HSET", keys.blocked, ADA, f"withdrawn:{seconds + 10}")
    assert await pool.admit(a_trainable("two", sample_id="s2", shown_at=seconds + 50.0)) is Verdict.WITHDRAWN


async def test_a_withdrawal_in_mid_flight_leaves_nothing_admitted_after_it(client: Redis, keys: RunKeys) -> None:
    batcher = Batcher(client)
    pool = pool_of(batcher, keys)
    tries = [pool.admit(a_trainable(f"text {number}", sample_id=f"s{number}")) for number in range(100)]
    withdrawn = command(client, "HSET", keys.blocked, ADA, f"withdrawn:{int(SHOWN_AT)}")
    *verdicts, _ = await asyncio.gather(*tries, withdrawn)
    while not (await pool.feed()).is_idle:
        pass
    counts = await balanced(client, keys)
    assert counts.admitted == Counter(verdicts)[Verdict.ADMITTED]
    assert counts.dropped.get("withdrawn", 0) == counts.admitted
    assert counts.pending[Stage.PROMPTS] == 0
    await batcher.aclose()


async def test_a_full_pool_says_so_before_anything_that_depends_on_other_prompts(client: Redis, keys: RunKeys) -> None:
    pool = pool_of(client, keys, pool_bound=1, prompts_per_user=1)
    await pool.admit(a_trainable("one", sample_id="s1"))
    assert await pool.admit(a_trainable("one", sample_id="s2")) is Verdict.POOL_FULL
    assert await pool.admit(a_trainable("one", sample_id="s3", user="bob")) is Verdict.POOL_FULL
    assert await pool.admit(a_trainable("new", sample_id="s4", split=Split.VALID)) is Verdict.POOL_FULL


@pytest.mark.parametrize("num_users", [1, 1000])
async def test_one_prompt_ten_thousand_times_is_admitted_once(client: Redis, keys: RunKeys, num_users: int) -> None:
    batcher = Batcher(client)
    pools = [pool_of(batcher, keys), pool_of(batcher, keys)]

    async def submit(number: int) -> Verdict:
        text = ("Name three fruits.", " NAME three\u200b fruits. ")[number % 2]
        prompt = a_trainable(text, sample_id=f"s{number}", user=f"user {number % num_users}")
        return await pools[number % 2].admit(prompt)

    verdicts = Counter(await asyncio.gather(*(submit(number) for number in range(10_000))))
    assert verdicts == {Verdict.ADMITTED: 1, Verdict.DUPLICATE: 9_999}
    assert (await balanced(client, keys)).admitted == 1
    await batcher.aclose()


async def test_a_long_shared_beginning_makes_a_duplicate_and_half_of_it_does_not(pool: Pool) -> None:
    draw = random.Random(1)
    text = "".join(draw.choices("abcdefgh ijklm", k=2000))
    assert await pool.admit(a_trainable(text[:1000], sample_id="a")) is Verdict.ADMITTED
    # 972 characters shared, on the ladder; of 1,900 they are more than half, of 2,000 less.
    assert await pool.admit(a_trainable(text[:1000] + "x" * 900, sample_id="b", user="bob")) is Verdict.DUPLICATE
    assert await pool.admit(a_trainable(text[:1000] + "y" * 1000, sample_id="c", user="bob")) is Verdict.ADMITTED
    # A shorter text with the same beginning, down to the first rung.
    assert await pool.admit(a_trainable(text[:200] + "z" * 20, sample_id="d", user="bob")) is Verdict.DUPLICATE
    assert await pool.admit(a_trainable(text[:127] + "z" * 20, sample_id="e", user="bob")) is Verdict.ADMITTED


async def test_a_longer_chat_takes_the_place_of_the_shorter_while_that_waits(
    client: Redis, keys: RunKeys, pool: Pool
) -> None:
    first, second, third = "Name three fruits." * 20, "Name three more.", "And nuts?"
    assert await pool.admit(a_trainable(first, sample_id="a")) is Verdict.ADMITTED
    assert await pool.admit(a_trainable(first, second, sample_id="b")) is Verdict.ADMITTED
    assert await pool.admit(a_trainable(first, second, third, sample_id="c")) is Verdict.ADMITTED
    assert await in_pool(client, keys) == {"c"}
    assert (await balanced(client, keys)).dropped == {"displaced": 2}
    assert await client.exists(keys.prompt("a"), keys.prompt("b"), keys.prompt("c")) == 1
    assert await client.lrange(keys.pool_new(a_caller("ada").tenant), 0, -1) == [b"c"]
    assert await client.zrange(keys.prompts_of(ADA), 0, -1) == [b"c"]
    assert await client.zrange(keys.prompts_by_age, 0, -1) == [b"c"]
    assert await client.hkeys(dedup_of(keys, ADA)) == [b"c"]
    # Every shorter turn of it that arrives late, whosever, and another chat that shares most of it.
    for number, turns in enumerate([(first,), (first, second), (first, second, third), (first, "No nuts?")]):
        for user in ("ada", "bob"):
            prompt = a_trainable(*turns, sample_id=f"late-{number}-{user}", user=user)
            assert await pool.admit(prompt) is Verdict.DUPLICATE
    assert (await pool.feed()).num_new == 1


async def test_a_chat_whose_beginning_was_fed_is_a_duplicate_where_that_is_half_of_it(
    client: Redis, keys: RunKeys, pool: Pool
) -> None:
    await pool.admit(a_trainable("Hello there", sample_id="a"))
    await pool.feed()
    assert await pool.admit(a_trainable("Hello there", "And now?", sample_id="b")) is Verdict.DUPLICATE
    # Nothing but a greeting in common.
    longer = a_trainable("Hello there", "Now tell me all about the history of Rome.", sample_id="c")
    assert await pool.admit(longer) is Verdict.ADMITTED
    assert (await balanced(client, keys)).dropped == {}


async def test_nobody_displaces_another_users_prompt(client: Redis, keys: RunKeys, pool: Pool) -> None:
    await pool.admit(a_trainable("Hello there", sample_id="a"))
    assert await pool.admit(a_trainable("Hello there", "And now?", sample_id="b", user="bob")) is Verdict.ADMITTED
    assert await in_pool(client, keys) == {"a", "b"}


async def test_the_cap_keeps_the_lowest_hashes_whatever_the_order(client: Redis, keys: RunKeys) -> None:
    for number, order in enumerate(itertools.permutations([1, 2, 3, 4])):
        pool = pool_of(client, keys, prompts_per_user=2)
        user = f"user {number}"
        for score in order:
            text = f"text {score} of {user}"
            await pool.admit(a_trainable(text, sample_id=f"{user}-{score}", user=user, score=score))
        kept = await client.zrange(keys.prompts_of(a_caller(user).owner), 0, -1)
        assert kept == [f"{user}-1".encode(), f"{user}-2".encode()]
    counts = await balanced(client, keys)
    assert counts.pending[Stage.POOL] == 48
    assert await client.zcard(keys.prompts_by_age) == 48


async def test_at_the_cap_what_was_fed_stays_and_the_next_highest_that_waits_goes(client: Redis, keys: RunKeys) -> None:
    pool = pool_of(client, keys, prompts_per_user=3)
    await pool.admit(a_trainable("one", sample_id="fed", score=9))
    await pool.feed()
    await pool.admit(a_trainable("two", sample_id="low", score=1))
    await pool.admit(a_trainable("three", sample_id="high", score=8))
    assert await pool.admit(a_trainable("four", sample_id="new", score=5)) is Verdict.ADMITTED
    assert await pool.admit(a_trainable("five", sample_id="late", score=7)) is Verdict.USER_CAP
    assert await Ledger(client, keys).states() == {
        "fed": "prompts", "low": "pool", "high": "dropped:displaced", "new": "pool",
    }  # fmt: skip
    # A text that the cap drove out is nobody's duplicate.
    assert await pool.admit(a_trainable("three", sample_id="again", user="bob")) is Verdict.ADMITTED
    assert await pool.admit(a_trainable("two", sample_id="twice", user="bob")) is Verdict.DUPLICATE


async def test_the_two_hundred_and_first_prompt_is_not_learned_from_and_other_users_are(
    client: Redis, keys: RunKeys, pool: Pool
) -> None:
    for number in range(200):
        prompt = a_trainable(f"text {number}", sample_id=f"s{number}", score=number)
        assert await pool.admit(prompt) is Verdict.ADMITTED
    assert await pool.admit(a_trainable("one more", sample_id="more", score=200)) is Verdict.USER_CAP
    assert await pool.admit(a_trainable("one more", sample_id="bobs", user="bob")) is Verdict.ADMITTED
    # The 200 again under other ids.
    assert await pool.admit(a_trainable("text 3", sample_id="again")) is Verdict.DUPLICATE


async def test_a_cap_is_exact_for_two_hundred_at_once_from_twenty_connections(
    client: Redis, keys: RunKeys, run_config: RunConfig
) -> None:
    clients = [redis.connect(run_config) for _ in range(20)]
    pools = [pool_of(each, keys, prompts_per_user=50) for each in clients]
    scores = random.Random(2).sample(range(10_000), 200)

    async def admit(number: int) -> Verdict:
        prompt = a_trainable(f"text {number}", sample_id=f"{number:08}", score=scores[number])
        return await pools[number % 20].admit(prompt)

    verdicts = Counter(await asyncio.gather(*(admit(number) for number in range(200))))
    counts = await balanced(client, keys)
    assert counts.pending[Stage.POOL] == 50
    assert counts.admitted == verdicts[Verdict.ADMITTED] == 50 + counts.dropped.get("displaced", 0)
    kept = await command(client, "ZRANGE", keys.prompts_of(ADA), 0, -1, "WITHSCORES")
    assert [int(score) for score in kept[1::2]] == sorted(scores)[:50]
    assert await client.zcard(keys.prompts_by_age) == 50
    for each in clients:
        await each.aclose()


async def test_the_caps_choice_is_not_moved_by_feeding_in_between(client: Redis, keys: RunKeys) -> None:
    pool = pool_of(client, keys, prompts_per_user=20)

    async def admit(number: int) -> None:
        await pool.admit(a_trainable(f"text {number}", sample_id=f"{number:08}"))
        if number % 3 == 0:
            await pool.feed()

    await asyncio.gather(*(admit(number) for number in range(200)))
    while (await pool.feed()).num_moved:
        pass
    counts = await balanced(client, keys)
    assert counts.pending[Stage.PROMPTS] == await client.zcard(keys.prompts_of(ADA)) == 20


async def test_a_held_out_prompt_is_a_record_in_the_indices_and_no_sample(
    client: Redis, keys: RunKeys, pool: Pool
) -> None:
    assert await pool.admit(a_trainable("one", sample_id="v", split=Split.VALID)) is Verdict.HELD_OUT
    assert await pool.admit(a_trainable("two", sample_id="t", user="bob", split=Split.TEST)) is Verdict.HELD_OUT
    assert await client.hgetall(held_out(keys)) == {b"v": b"valid", b"t": b"test"}
    assert await Ledger(client, keys).states() == {}
    assert (await pool.feed()).is_idle
    assert await client.exists(keys.prompt("v"), keys.prompt("t")) == 2
    assert await client.zcard(keys.prompts_by_age) == 2
    # What is tested on is not trained on, and the other way round.
    assert await pool.admit(a_trainable("one", sample_id="s", user="carol")) is Verdict.DUPLICATE


async def test_held_out_prompts_are_capped_and_grow_as_others_do(client: Redis, keys: RunKeys) -> None:
    pool = pool_of(client, keys, prompts_per_user=1)

    async def admit(*turns: str, sample_id: str, score: int) -> Verdict:
        return await pool.admit(a_trainable(*turns, sample_id=sample_id, score=score, split=Split.VALID))

    assert await admit("one", sample_id="a", score=5) is Verdict.HELD_OUT
    assert await admit("one", "two", sample_id="b", score=9) is Verdict.HELD_OUT
    assert await admit("other", sample_id="c", score=10) is Verdict.USER_CAP
    assert await admit("other", sample_id="d", score=1) is Verdict.HELD_OUT
    assert await client.hgetall(held_out(keys)) == {b"d": b"valid"}
    assert await client.zrange(keys.prompts_by_age, 0, -1) == [b"d"]


async def test_gateways_that_are_given_no_hash_key_share_one(client: Redis, keys: RunKeys) -> None:
    first, second = HashKey(client, keys), HashKey(client, keys)
    assert len((await first.digests()).key) == 32
    assert await first.digests() == await second.digests()
    assert await HashKey(client, keys, b"a key of one's own").digests() == Digests(b"a key of one's own")


async def test_a_gateway_that_would_split_otherwise_does_not_start(client: Redis, keys: RunKeys) -> None:
    splits = Splits(salt="1", valid_share=0.05, test_share=0.05)
    for _ in range(2):
        await check_lineage(client, keys, splits, DIGESTS)
    for other in (
        Splits(salt="2", valid_share=0.05, test_share=0.05),
        Splits(salt="1", valid_share=0.1, test_share=0.05),
        Splits(salt="1", valid_share=0.05, test_share=0.0),
    ):
        with pytest.raises(StartupError, match="split_salt"):
            await check_lineage(client, keys, other, DIGESTS)
    with pytest.raises(StartupError, match="hash_key"):
        await check_lineage(client, keys, splits, Digests(b"another key"))
