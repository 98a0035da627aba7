"""Erasure over the gateway's own stores, filled as the gateway fills them."""

from typing import Any

import pytest
from redis.asyncio import Redis

from integration.gateway.limits_support import defaults
from integration.gateway.receiving import Stores
from integration.owned_samples import HASH_KEY
from onlinerlhf.core.samples import DropReason, Stage, VersionSpan
from onlinerlhf.gateway.access.callers import Caller, Limits
from onlinerlhf.gateway.access.identity import HashKey
from onlinerlhf.gateway.access.limits import Meter
from onlinerlhf.gateway.admission.offers import Verdict
from onlinerlhf.gateway.admission.pool import Limits as PoolLimits
from onlinerlhf.gateway.admission.pool import Pool, dedup_of, held_out
from onlinerlhf.gateway.admission.splits import Split
from onlinerlhf.gateway.kept.feedback import Correction, Ranking, Thumb
from onlinerlhf.gateway.rights.erasure import Erasure
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.redis import Patience, command
from onlinerlhf.runtime.streams import Consumer, Streams
from redis_servers import redis_binaries
from trainables import a_caller, a_trainable

pytestmark = pytest.mark.parametrize("redis_binary", redis_binaries(), indirect=True)

POOL_LIMITS = PoolLimits(prompts_per_user=200, pool_bound=1000, prompts_bound=3, max_epochs=3, retention_seconds=86_400)


class Gateway:
    """What one gateway keeps."""

    def __init__(self, client: Redis, keys: RunKeys) -> None:
        self.keys = keys
        self.pool = Pool(client, keys, POOL_LIMITS)
        self.stores = Stores(client, keys)
        limits = Limits(requests_per_minute=100, tokens_per_minute=10_000, max_concurrent=10)
        self.meter = Meter(client, keys, defaults(limits, user=limits, organisation=limits))

    async def live(self, user: str, organisation: str) -> Caller:
        """A user with something in every store."""
        who = a_caller(user, organisation=organisation)
        for number, split in enumerate((Split.TRAIN, Split.TRAIN, Split.VALID, Split.TEST)):
            text = f"{user} of {organisation} asks a long question, number {number}. " + "and on it goes " * 20
            prompt = a_trainable(
                text, sample_id=f"{user}{organisation}{number}", user=user, organisation=organisation, split=split
            )
            verdict = Verdict.ADMITTED if split is Split.TRAIN else Verdict.HELD_OUT
            assert await self.pool.admit(prompt) is verdict
        first, second = await self.stores.answer(who, num=2)
        await self.stores.receipts.claim(who, idempotency_key=f"key of {user}", body=b"body", num_samples=1)
        give, key = self.stores.feedback.give, who.key
        await give(key, Thumb(sample_id=first, up=True), idempotency_key=f"{user} {organisation} 1")
        await give(key, Correction(sample_id=second, text=b"better"), idempotency_key=f"{user} {organisation} 2")
        await give(key, Ranking(sample_ids=(second, first)), idempotency_key=f"{user} {organisation} 3")
        await self.meter.reserve(who, num_tokens=10, request_id=f"request of {user} {organisation}")
        return who


@pytest.fixture
def gateway(client: Redis, keys: RunKeys, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """Of this run."""
    monkeypatch.setattr("integration.gateway.receiving.HASH_KEY", HASH_KEY)
    return Gateway(client, keys)


@pytest.fixture
def erasure(client: Redis, keys: RunKeys, patience: Patience) -> Erasure:
    """Of this run."""
    return Erasure(client, keys, HashKey(client, keys, HASH_KEY), patience)


async def _contents(client: Redis, keys: RunKeys) -> dict[bytes, Any]:
    """Of all keys, in a form that says the same for equal contents."""
    contents: dict[bytes, Any] = {}
    for name in await command(client, "KEYS", keys.key("*")):
        kind = await command(client, "TYPE", name)
        if kind == b"string":
            contents[name] = await command(client, "GET", name)
        elif kind == b"hash":
            contents[name] = sorted((await command(client, "HGETALL", name)).items())
        elif kind == b"zset":
            contents[name] = await command(client, "ZRANGE", name, 0, -1, "WITHSCORES")
        elif kind == b"list":
            contents[name] = await command(client, "LRANGE", name, 0, -1)
        elif kind == b"stream":
            contents[name] = await command(client, "XRANGE", name, "-", "+")
    return contents


@pytest.mark.parametrize("organisation", ["acme", ""])
async def test_erasing_a_user_leaves_the_stores_as_if_only_others_had_been_there(
    gateway: Gateway, erasure: Erasure, client: Redis, keys: RunKeys, organisation: str
) -> None:
    bob = await gateway.live("bob", organisation)
    before = await _contents(client, keys)
    ann = await gateway.live("ann", organisation)
    found = await erasure.verify(organisation, "ann")
    stores = {"records", "pool", "ledger", "dedup", "receipts", "answers", "feedback", "idempotency", "limits"}
    assert stores - set(found.num_left) <= ({"pool"} if organisation else set())
    receipt = await erasure.erase(organisation, "ann")
    counts = {store: receipt.num_removed[store] for store in stores - {"limits", "dedup"}}
    assert counts == {
        "records": 4,
        "pool": 2,
        "ledger": 2,
        "receipts": 3,
        "answers": 2,
        "feedback": 3,
        "idempotency": 1,
    }
    assert receipt.num_samples_dropped == 2
    verification = await erasure.verify(organisation, "ann")
    assert verification.num_left == {}
    after = await _contents(client, keys)
    # Counts of all samples, tombstones, and what changes by itself or is shared.
    spared = tuple(map(keys.key, ("ledger:states", "ledger:counts", "blocked", "pool:tenants", "erased:", "limit:")))
    for contents in (before, after):
        for name in [name for name in contents if name.decode().startswith(spared)]:
            contents.pop(name)
    assert not any(ann.owner.encode() in name for name in after)
    assert after == before
    assert (await erasure.verify(organisation, "bob")).num_left["records"] > 0
    counts_now = await Ledger(client, keys).counts()
    assert (counts_now.imbalance, counts_now.dropped) == (0, {"erased": 2})
    assert counts_now == await Ledger(client, keys).audit()
    assert (await gateway.stores.receipts.claim(bob, idempotency_key="", body=b"", num_samples=1)).sample_ids


async def test_an_answer_that_ends_after_the_erasure_leaves_nothing(
    gateway: Gateway, erasure: Erasure, client: Redis, keys: RunKeys
) -> None:
    who = a_caller("ann", organisation="acme")
    claim = await gateway.stores.receipts.claim(who, idempotency_key="once", body=b"", num_samples=1)
    [sample_id] = claim.sample_ids
    prompt = a_trainable("what is asked", sample_id=sample_id, user="ann", organisation="acme")
    assert await gateway.pool.admit(prompt) is Verdict.ADMITTED
    await erasure.erase("acme", "ann")
    await gateway.stores.receipts.complete(sample_id, versions=[VersionSpan(version=3, num_tokens=2)], num_tokens=2)
    await gateway.stores.answers.keep(sample_id, who, prompt=[("user", "what")], response="that", version=3)
    again = a_trainable("what is asked later", sample_id="f" * 32, user="ann", organisation="acme")
    assert await gateway.pool.admit(again) is Verdict.ERASED
    assert await gateway.stores.answer(who)
    verification = await erasure.verify("acme", "ann")
    assert verification.num_left == {}
    assert (await gateway.pool.feed()).num_moved == 0
    assert (await Ledger(client, keys).states()) == {sample_id: "dropped:erased"}


async def test_a_user_erased_between_two_epochs_is_not_fed_again(
    gateway: Gateway, erasure: Erasure, client: Redis, keys: RunKeys, patience: Patience
) -> None:
    streams = Streams(client, keys)
    await streams.ensure_groups()
    for user in ("ann", "bob"):
        assert await gateway.pool.admit(a_trainable(f"from {user}", sample_id=user, user=user)) is Verdict.ADMITTED
    assert (await gateway.pool.feed()).num_new == 2
    worker = Consumer(client, keys, Stage.PROMPTS, name="one", patience=patience)
    for delivery in await worker.read(max_count=2, block_seconds=0):
        await worker.drop(delivery, DropReason.STALE)
    receipt = await erasure.erase("", "ann")
    assert receipt.num_removed == {"dedup": 1, "ledger": 1, "records": 1, "replay": 1}
    fed = await gateway.pool.feed()
    assert (fed.num_reused, fed.num_waiting_reuse) == (1, 1)
    assert await Ledger(client, keys).states() == {"ann": "dropped:stale", "bob": "dropped:stale", "bob.1": "prompts"}
    assert (await erasure.verify("", "ann")).num_left == {}


async def test_a_withdrawn_prompt_may_be_sent_again_under_new_consent(
    gateway: Gateway, erasure: Erasure, client: Redis, keys: RunKeys
) -> None:
    who = a_caller("ann")
    assert await gateway.pool.admit(a_trainable("the same words", sample_id="one", user="ann")) is Verdict.ADMITTED
    assert await erasure.withdraw(who.owner) == 1
    second = int((await command(client, "HGET", keys.blocked, who.owner)).partition(b":")[2])
    old = a_trainable("the same words", sample_id="two", user="ann", shown_at=second)
    assert await gateway.pool.admit(old) is Verdict.WITHDRAWN
    assert await command(client, "EXISTS", dedup_of(keys, who.owner), keys.prompts_of(who.owner), held_out(keys)) == 0
    # Redis's clock caps what a client says of its own, so that a later second must have come.
    while (await command(client, "TIME"))[0] <= second:
        pass
    new = a_trainable("the same words", sample_id="three", user="ann", shown_at=second + 1)
    assert await gateway.pool.admit(new) is Verdict.ADMITTED
    assert await Ledger(client, keys).states() == {"one": "dropped:withdrawn", "three": "pool"}
