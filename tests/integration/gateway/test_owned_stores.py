"""Receipts, answers, feedback and idempotency keys go with their owner, and nobody else's do."""

import pytest
from redis.asyncio import Redis

from integration.gateway.receiving import HASH_KEY, Stores, api_key, caller
from onlinerlhf.core.errors import NotFound
from onlinerlhf.core.samples import VersionSpan
from onlinerlhf.gateway.access.identity import HashKey
from onlinerlhf.gateway.kept.feedback import Correction, Ranking, Thumb
from onlinerlhf.gateway.rights.erasure import Erasure
from onlinerlhf.gateway.rights.owned import owned_stores
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Patience, command


@pytest.fixture
def stores(client: Redis, keys: RunKeys) -> Stores:
    """One gateway's."""
    return Stores(client, keys)


@pytest.fixture
def erasure(client: Redis, keys: RunKeys, patience: Patience) -> Erasure:
    """Of the run."""
    return Erasure(client, keys, HashKey(client, keys, HASH_KEY), patience)


async def everything(stores: Stores, user: str) -> tuple[str, ...]:
    """Something in every store; two sample ids."""
    first, second = await stores.answer(caller(user), num=2)
    await stores.receipts.claim(caller(user), idempotency_key="k", body=b"", num_samples=1)
    await stores.feedback.give(api_key(), Ranking(sample_ids=(first, second)), idempotency_key=f"{user} 1")
    await stores.feedback.give(api_key(), Correction(sample_id=first, text=b"so"), idempotency_key=f"{user} 2")
    return first, second


async def sizes(client: Redis, keys: RunKeys, user: str) -> dict[str, tuple[int, int]]:
    """Store -> entries of the owner's index, and of their records that are there."""
    found = {}
    for store in owned_stores(keys, caller(user).owner):
        members = [member.decode() for member in await command(client, "ZRANGE", store.index, 0, -1)]
        records = [store.record(member) for member in members]
        found[store.name] = len(members), int(await command(client, "EXISTS", *records)) if records else 0
    return found


async def test_erasing_one_user_leaves_nothing_of_them_and_all_of_the_others(
    client: Redis, keys: RunKeys, stores: Stores, erasure: Erasure
) -> None:
    full = {"receipts": (3, 3), "answers": (2, 2), "feedback": (2, 2), "idempotency": (1, 1)}
    for user in ("ada", "grace"):
        await everything(stores, user)
        assert await sizes(client, keys, user) == full
    receipt = await erasure.erase("acme", "ada")
    assert {name: receipt.num_removed[name] for name in full} == {
        "receipts": 3,
        "answers": 2,
        "feedback": 2,
        "idempotency": 1,
    }
    assert not (await erasure.verify("acme", "ada")).num_left
    assert await sizes(client, keys, "ada") == dict.fromkeys(full, (0, 0))
    assert await sizes(client, keys, "grace") == full


async def test_what_comes_after_the_erasure_leaves_nothing_either(stores: Stores, erasure: Erasure) -> None:
    first, second = await everything(stores, "ada")
    await erasure.erase("acme", "ada")
    await stores.receipts.complete(first, versions=[VersionSpan(version=3, num_tokens=1)], num_tokens=1)
    await stores.answers.keep(second, caller("ada"), prompt=[("user", "q")], response="a", version=3)
    with pytest.raises(NotFound):
        await stores.feedback.give(api_key(), Thumb(sample_id=first, up=True), idempotency_key="late")
    await stores.receipts.claim(caller("ada"), idempotency_key="k", body=b"", num_samples=1)
    assert not (await erasure.verify("acme", "ada")).num_left
