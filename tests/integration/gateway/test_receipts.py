"""Receipts on real Redis servers."""

import asyncio

import pytest
from redis.asyncio import Redis

from integration.gateway.receiving import Stores, api_key, caller
from onlinerlhf.core.errors import IdempotencyConflict, NotFound
from onlinerlhf.core.samples import VersionSpan
from onlinerlhf.gateway.access.callers import Scope
from onlinerlhf.gateway.requests.receipts import ReceiptKind, new_sample_ids
from onlinerlhf.gateway.requests.samples import SampleReader, SampleState
from onlinerlhf.gateway.rights import owned
from onlinerlhf.runtime.batches import Batcher
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.redis import Patience, command
from redis_servers import redis_binaries

pytestmark = pytest.mark.parametrize("redis_binary", redis_binaries(), indirect=True)


@pytest.fixture
def stores(client: Redis, keys: RunKeys) -> Stores:
    """One gateway's."""
    return Stores(client, keys)


async def test_the_same_idempotency_key_gives_the_same_samples(stores: Stores) -> None:
    first = await stores.receipts.claim(caller(), idempotency_key="k", body=b"hello", num_samples=2)
    again = await stores.receipts.claim(caller(), idempotency_key="k", body=b"hello", num_samples=2)
    assert len(set(first.sample_ids)) == 2
    assert again.sample_ids == first.sample_ids
    assert (first.replayed, again.replayed) == (False, True)


@pytest.mark.parametrize(
    ("body", "num_samples", "kind"),
    [(b"other", 1, ReceiptKind.ANSWER), (b"hello", 2, ReceiptKind.ANSWER), (b"hello", 1, ReceiptKind.PROMPT)],
)
async def test_the_same_idempotency_key_with_another_request_is_a_conflict(
    stores: Stores, body: bytes, num_samples: int, kind: ReceiptKind
) -> None:
    first = await stores.receipts.claim(caller(), idempotency_key="k", body=b"hello", num_samples=1)
    with pytest.raises(IdempotencyConflict):
        await stores.receipts.claim(caller(), idempotency_key="k", body=body, num_samples=num_samples, kind=kind)
    again = await stores.receipts.claim(caller(), idempotency_key="k", body=b"hello", num_samples=1)
    assert again.sample_ids == first.sample_ids


async def test_an_idempotency_key_means_nothing_for_another_user(stores: Stores) -> None:
    first = await stores.receipts.claim(caller("ada"), idempotency_key="k", body=b"hello", num_samples=1)
    other = await stores.receipts.claim(caller("grace"), idempotency_key="k", body=b"other", num_samples=1)
    assert not other.replayed
    assert other.sample_ids != first.sample_ids


async def test_equal_idempotency_keys_of_two_users_have_no_word_in_common(
    stores: Stores, client: Redis, keys: RunKeys
) -> None:
    for user in ("ada", "grace"):
        await stores.receipts.claim(caller(user), idempotency_key="k", body=b"hello", num_samples=1)
    digests = [
        await command(client, "ZRANGE", owned.idempotency_of(keys, caller(user).owner), 0, -1)
        for user in ("ada", "grace")
    ]
    assert [len(members) for members in digests] == [1, 1]
    assert digests[0] != digests[1]


async def test_without_an_idempotency_key_every_request_is_new(stores: Stores) -> None:
    claims = [await stores.receipts.claim(caller(), idempotency_key="", body=b"x", num_samples=1) for _ in range(3)]
    assert len({claim.sample_ids for claim in claims}) == 3
    assert not any(claim.replayed for claim in claims)


async def test_whoever_repeats_a_call_with_its_own_ids_is_not_told_of_a_replay(stores: Stores) -> None:
    ids = new_sample_ids(1)
    for _ in range(2):
        claim = await stores.receipts.claim(caller(), idempotency_key="k", body=b"hello", num_samples=1, sample_ids=ids)
        assert claim.sample_ids == ids
        assert not claim.replayed


async def test_of_200_claims_at_once_by_many_gateways_one_makes_the_sample(client: Redis, keys: RunKeys) -> None:
    gateways = [Stores(client, keys) for _ in range(10)]
    claims = await asyncio.gather(
        *(
            gateways[number % 10].receipts.claim(caller(), idempotency_key="k", body=b"hello", num_samples=1)
            for number in range(200)
        )
    )
    assert len({claim.sample_ids for claim in claims}) == 1
    assert sum(not claim.replayed for claim in claims) == 1


async def test_claims_may_travel_together(client: Redis, keys: RunKeys) -> None:
    batcher = Batcher(client)
    stores = Stores(batcher, keys)  # type: ignore[arg-type]
    claims = await asyncio.gather(
        *(stores.receipts.claim(caller(), idempotency_key=f"k{n}", body=b"x", num_samples=1) for n in range(50))
    )
    await batcher.aclose()
    assert len({claim.sample_ids for claim in claims}) == 50


async def test_a_receipt_says_who_got_what_and_by_which_versions(stores: Stores) -> None:
    claim = await stores.receipts.claim(caller(), idempotency_key="", body=b"", num_samples=2)
    spans = [VersionSpan(version=4, num_tokens=3), VersionSpan(version=5, num_tokens=1)]
    await stores.receipts.complete(claim.sample_ids[1], versions=spans, num_tokens=4)
    first, second = [await stores.receipts.received(sample_id) for sample_id in claim.sample_ids]
    assert first is not None and second is not None
    assert (first.key_id, first.owner, first.kind) == ("k1", caller().owner, ReceiptKind.ANSWER)
    assert first.claim_id == second.claim_id == claim.sample_ids[0]
    assert (first.version, second.version) == (0, 5)
    assert second.version_spans == tuple(spans)
    assert second.num_tokens == 4


async def test_receipts_and_idempotency_keys_go_with_age(stores: Stores, client: Redis, keys: RunKeys) -> None:
    claim = await stores.receipts.claim(caller(), idempotency_key="k", body=b"", num_samples=1)
    names = [name async for name in client.scan_iter(match=keys.key("*"))]
    lifetimes = {name.decode(): await command(client, "TTL", name) for name in names}
    assert len(names) == 4
    assert all(0 < seconds <= 3600 for seconds in lifetimes.values())
    assert lifetimes[keys.receipt(claim.sample_ids[0])] > 3000


async def test_nothing_is_kept_of_an_erased_owner_who_comes_back(stores: Stores, client: Redis, keys: RunKeys) -> None:
    who = caller()
    await command(client, "HSET", keys.blocked, who.owner, "erased")
    claim = await stores.receipts.claim(who, idempotency_key="k", body=b"", num_samples=2)
    assert len(claim.sample_ids) == 2
    assert not claim.replayed
    await stores.receipts.complete(claim.sample_ids[0], versions=[], num_tokens=0)
    assert [name async for name in client.scan_iter(match=keys.key("*"))] == [keys.blocked.encode()]


async def test_an_answer_that_ends_after_the_erasure_leaves_nothing(
    stores: Stores, client: Redis, keys: RunKeys
) -> None:
    claim = await stores.receipts.claim(caller(), idempotency_key="", body=b"", num_samples=1)
    await command(client, "DEL", keys.receipt(claim.sample_ids[0]))
    await stores.receipts.complete(claim.sample_ids[0], versions=[VersionSpan(version=1, num_tokens=1)], num_tokens=1)
    await stores.answers.keep(claim.sample_ids[0], caller(), prompt=[("user", "q")], response="a", version=1)
    names = [name async for name in client.scan_iter(match=keys.key("*"))]
    assert names == [keys.receipts_of(caller().owner).encode()]


async def test_ids_that_are_none_of_ours_never_become_keys(stores: Stores) -> None:
    for sample_id in ("", "x", "../..", "0" * 31, "0" * 33, "G" * 32, "\ud800" * 32, "0" * 31 + "\n"):
        assert await stores.receipts.received(sample_id) is None


async def test_a_client_learns_only_that_it_received_a_sample(
    stores: Stores, client: Redis, keys: RunKeys, patience: Patience
) -> None:
    samples = SampleReader(Ledger(client, keys), stores.receipts, patience)
    sample_id, *_ = (await stores.receipts.claim(caller(), idempotency_key="", body=b"", num_samples=1)).sample_ids
    await command(client, "HSET", keys.ledger_states, sample_id, "dropped:stale")
    assert await samples.get(api_key(), sample_id, give_up_seconds=1) == SampleState(state="received")
    messages = []
    for key, asked in ((api_key("k2"), sample_id), (api_key("k2"), "0" * 32), (api_key(), f"{sample_id}.1")):
        with pytest.raises(NotFound) as refusal:
            await samples.get(key, asked, give_up_seconds=1)
        messages.append(str(refusal.value))
    assert len(set(messages)) == 1


async def test_an_admin_sees_the_ledgers_word(stores: Stores, client: Redis, keys: RunKeys, patience: Patience) -> None:
    samples = SampleReader(Ledger(client, keys), stores.receipts, patience)
    admin = api_key("k9", scopes=[Scope.ADMIN])
    admitted, answered = [
        (await stores.receipts.claim(caller(), idempotency_key="", body=b"", num_samples=1)).sample_ids[0]
        for _ in range(2)
    ]
    await command(client, "HSET", keys.ledger_states, admitted, "dropped:stale", f"{admitted}.1", "trained:7")
    assert await samples.get(admin, admitted, give_up_seconds=1) == SampleState(state="dropped", drop_reason="stale")
    again = await samples.get(admin, f"{admitted}.1", give_up_seconds=1)
    assert again == SampleState(state="trained", trained_version=7)
    assert await samples.get(admin, answered, give_up_seconds=1) == SampleState(state="received")
    with pytest.raises(NotFound):
        await samples.get(admin, "0" * 32, give_up_seconds=1)


async def test_an_organisations_admin_sees_its_own_samples_alone(
    stores: Stores, client: Redis, keys: RunKeys, patience: Patience
) -> None:
    samples = SampleReader(Ledger(client, keys), stores.receipts, patience)
    (sample_id,) = (await stores.receipts.claim(caller(), idempotency_key="", body=b"", num_samples=1)).sample_ids
    await command(client, "HSET", keys.ledger_states, sample_id, "pool", "9" * 32, "pool")
    everybodys = api_key("k8", scopes=[Scope.ADMIN], organisation="")
    assert await samples.get(everybodys, "9" * 32, give_up_seconds=1) == SampleState(state="pool")
    assert await samples.get(everybodys, sample_id, give_up_seconds=1) == SampleState(state="pool")
    for key, asked in (
        (api_key("k9", scopes=[Scope.ADMIN], organisation="other"), sample_id),
        (api_key("k1", scopes=[Scope.ADMIN]), "9" * 32),
    ):
        with pytest.raises(NotFound):
            await samples.get(key, asked, give_up_seconds=1)
