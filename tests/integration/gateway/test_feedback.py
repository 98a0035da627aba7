"""Feedback and kept answers on real Redis servers."""

import asyncio
import json
import math

import pytest
from redis.asyncio import Redis

from integration.gateway.receiving import Stores, api_key, caller
from onlinerlhf.core.errors import (
    ConsentMissing,
    IdempotencyConflict,
    InvalidInput,
    LimitReached,
    NotFound,
    OnlineRLHFError,
)
from onlinerlhf.gateway.access.callers import KeyClass
from onlinerlhf.gateway.kept.feedback import MAX_PER_ANSWER, Correction, Judgement, Ranking, Score, Thumb
from onlinerlhf.gateway.pii.policy import Policy
from onlinerlhf.gateway.requests.receipts import ReceiptKind
from onlinerlhf.gateway.rights import owned
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import command
from redis_servers import redis_binaries

pytestmark = pytest.mark.parametrize("redis_binary", redis_binaries(), indirect=True)


@pytest.fixture
def stores(client: Redis, keys: RunKeys) -> Stores:
    """One gateway's."""
    return Stores(client, keys)


async def stored(client: Redis, keys: RunKeys, feedback_id: str) -> dict[str, str]:
    fields = await command(client, "HGETALL", owned.feedback(keys, feedback_id))
    return {name.decode(): value.decode() for name, value in fields.items()}


async def num_stored(client: Redis, keys: RunKeys) -> int:
    return int(await command(client, "ZCARD", owned.feedback_by_age(keys)))


async def test_a_thumb_is_stored_with_the_samples_version_and_owner(
    stores: Stores, client: Redis, keys: RunKeys
) -> None:
    (sample_id,) = await stores.answer(caller(), version=7)
    receipt = await stores.feedback.give(api_key(), Thumb(sample_id=sample_id, up=True), idempotency_key="f")
    record = await stored(client, keys, receipt.feedback_id)
    assert not receipt.replayed
    assert (record["kind"], record["value"], record["samples"]) == ("thumb", "true", sample_id)
    assert (record["versions"], record["owner"], record["text"]) == ("7", caller().owner, "")
    assert await command(client, "TTL", owned.feedback(keys, receipt.feedback_id)) > 3000


async def test_feedback_reaches_neither_the_ledger_nor_any_stream(stores: Stores, client: Redis, keys: RunKeys) -> None:
    (sample_id,) = await stores.answer(caller())
    await stores.feedback.give(api_key(), Score(sample_id=sample_id, value=0.25), idempotency_key="f")
    names = {name.decode() async for name in client.scan_iter(match=keys.key("*"))}
    assert not [name for name in names if ":ledger" in name or ":stream" in name]


async def test_a_retry_gets_the_same_feedback_id_and_stores_nothing_more(
    stores: Stores, client: Redis, keys: RunKeys
) -> None:
    (sample_id,) = await stores.answer(caller())
    judgement = Thumb(sample_id=sample_id, up=True)
    receipts = await asyncio.gather(
        *(stores.feedback.give(api_key(), judgement, idempotency_key="f") for _ in range(20))
    )
    assert len({receipt.feedback_id for receipt in receipts}) == 1
    assert sum(not receipt.replayed for receipt in receipts) == 1
    assert await num_stored(client, keys) == 1


@pytest.mark.parametrize("other", ["down", "score", "sample"])
async def test_the_same_idempotency_key_with_another_judgement_is_a_conflict(stores: Stores, other: str) -> None:
    first, second = await stores.answer(caller(), num=2)
    await stores.feedback.give(api_key(), Thumb(sample_id=first, up=True), idempotency_key="f")
    judgements: dict[str, Judgement] = {
        "down": Thumb(sample_id=first, up=False),
        "score": Score(sample_id=first, value=1.0),
        "sample": Thumb(sample_id=second, up=True),
    }
    with pytest.raises(IdempotencyConflict):
        await stores.feedback.give(api_key(), judgements[other], idempotency_key="f")


async def test_another_sample_of_another_key_and_none_at_all_are_refused_alike(stores: Stores) -> None:
    (sample_id,) = await stores.answer(caller())
    taken_in = await stores.receipts.claim(
        caller(), idempotency_key="", body=b"", num_samples=1, kind=ReceiptKind.PROMPT
    )
    messages = set()
    for key, asked in (
        (api_key("k2"), sample_id),
        (api_key("k2"), "0" * 32),
        (api_key(), "not an id"),
        (api_key(), "\ud800"),
        (api_key(), taken_in.sample_ids[0]),
    ):
        with pytest.raises(NotFound) as refusal:
            await stores.feedback.give(key, Thumb(sample_id=asked, up=True), idempotency_key="f")
        messages.add(str(refusal.value))
    assert len(messages) == 1


async def test_a_ranking_with_one_sample_that_was_not_received_is_refused(
    stores: Stores, client: Redis, keys: RunKeys
) -> None:
    first, second = await stores.answer(caller(), num=2)
    with pytest.raises(NotFound):
        await stores.feedback.give(api_key(), Ranking(sample_ids=(first, "f" * 32)), idempotency_key="f")
    ranking = Ranking(sample_ids=(second, first))
    receipt = await stores.feedback.give(api_key(), ranking, idempotency_key="f")
    record = await stored(client, keys, receipt.feedback_id)
    assert (record["kind"], record["samples"], record["versions"]) == ("ranking", f"{second} {first}", "3 3")


async def test_answers_to_one_prompt_asked_twice_can_be_ranked_and_those_to_two_prompts_cannot(stores: Stores) -> None:
    (first,), (second,) = await stores.answer(caller(), prompt="one"), await stores.answer(caller(), prompt="two")
    (again,) = await stores.answer(caller(), prompt="one")
    assert await stores.feedback.give(api_key(), Ranking(sample_ids=(again, first)), idempotency_key="g")
    with pytest.raises(InvalidInput) as refusal:
        await stores.feedback.give(api_key(), Ranking(sample_ids=(first, second)), idempotency_key="f")
    assert refusal.value.reason == "bad_ranking"


@pytest.mark.parametrize(
    ("judgement", "reason"),
    [
        (Score(sample_id="0" * 32, value=math.nan), "bad_score"),
        (Score(sample_id="0" * 32, value=1.01), "bad_score"),
        (Ranking(sample_ids=tuple(f"{n:032x}" for n in range(10))), "bad_ranking"),
        (Correction(sample_id="0" * 32, text=b"x" * 1001), "too_large"),
    ],
)
async def test_the_form_is_checked_before_anything_is_looked_up(
    stores: Stores, judgement: Judgement, reason: str
) -> None:
    with pytest.raises(InvalidInput) as refusal:
        await stores.feedback.give(api_key(), judgement, idempotency_key="f")
    assert refusal.value.reason == reason


@pytest.mark.parametrize(
    ("text", "reason"), [(b"\xff", "not_utf8"), (b"a\x00b", "control_character"), ("\u200b ".encode(), "empty")]
)
async def test_a_correction_must_be_text(stores: Stores, text: bytes, reason: str) -> None:
    (sample_id,) = await stores.answer(caller())
    with pytest.raises(InvalidInput) as refusal:
        await stores.feedback.give(api_key(), Correction(sample_id=sample_id, text=text), idempotency_key="f")
    assert refusal.value.reason == reason


@pytest.mark.parametrize("key", ["", "x" * 129, "tab\t", "é"])
async def test_feedback_needs_an_idempotency_key(stores: Stores, key: str) -> None:
    (sample_id,) = await stores.answer(caller())
    with pytest.raises(InvalidInput) as refusal:
        await stores.feedback.give(api_key(), Thumb(sample_id=sample_id, up=True), idempotency_key=key)
    assert refusal.value.reason == "bad_idempotency_key"


async def test_a_correction_is_stored_without_personal_data(stores: Stores, client: Redis, keys: RunKeys) -> None:
    (sample_id,) = await stores.answer(caller())
    correction = Correction(sample_id=sample_id, text=b"write to secret now")
    receipt = await stores.feedback.give(api_key(), correction, idempotency_key="f")
    assert (await stored(client, keys, receipt.feedback_id))["text"] == "write to [EMAIL] now"


async def test_where_the_scanner_fails_a_correction_counts_without_its_text(
    stores: Stores, client: Redis, keys: RunKeys
) -> None:
    (sample_id,) = await stores.answer(caller())
    stores.scanner.fails = True
    receipt = await stores.feedback.give(api_key(), Correction(sample_id=sample_id, text=b"so"), idempotency_key="f")
    record = await stored(client, keys, receipt.feedback_id)
    assert (record["kind"], record["text"]) == ("correction", "")


async def test_a_correction_of_an_answer_that_was_not_kept_counts_without_its_text(
    stores: Stores, client: Redis, keys: RunKeys
) -> None:
    claim = await stores.receipts.claim(caller(), idempotency_key="", body=b"", num_samples=1)
    correction = Correction(sample_id=claim.sample_ids[0], text=b"so")
    receipt = await stores.feedback.give(api_key(), correction, idempotency_key="f")
    assert (await stored(client, keys, receipt.feedback_id))["text"] == ""


async def test_a_production_key_judges_without_text(stores: Stores, client: Redis, keys: RunKeys) -> None:
    key = api_key(key_class=KeyClass.PRODUCTION)
    claim = await stores.receipts.claim(caller(key=key), idempotency_key="", body=b"", num_samples=1)
    (sample_id,) = claim.sample_ids
    receipt = await stores.feedback.give(key, Thumb(sample_id=sample_id, up=False), idempotency_key="f")
    assert (await stored(client, keys, receipt.feedback_id))["text"] == ""
    with pytest.raises(ConsentMissing) as refusal:
        await stores.feedback.give(key, Correction(sample_id=sample_id, text=b"so"), idempotency_key="g")
    assert refusal.value.reason == "production_key"
    assert await num_stored(client, keys) == 1


async def test_nothing_is_stored_of_an_erased_owner_and_the_receipt_looks_the_same(
    stores: Stores, client: Redis, keys: RunKeys
) -> None:
    (sample_id,) = await stores.answer(caller())
    await command(client, "HSET", keys.blocked, caller().owner, "erased")
    correction = Correction(sample_id=sample_id, text=b"so")
    receipt, again = [await stores.feedback.give(api_key(), correction, idempotency_key="f") for _ in range(2)]
    assert len(receipt.feedback_id) == 32
    assert receipt.feedback_id == again.feedback_id
    assert await num_stored(client, keys) == 0


async def test_after_a_withdrawal_a_correction_is_stored_without_its_text(
    stores: Stores, client: Redis, keys: RunKeys
) -> None:
    (sample_id,) = await stores.answer(caller())
    second, _ = await command(client, "TIME")
    await command(client, "HSET", keys.blocked, caller().owner, f"withdrawn:{int(second)}")
    receipt = await stores.feedback.give(api_key(), Correction(sample_id=sample_id, text=b"so"), idempotency_key="f")
    assert (await stored(client, keys, receipt.feedback_id))["text"] == ""


async def test_an_answer_has_a_bounded_number_of_judgements(stores: Stores, client: Redis, keys: RunKeys) -> None:
    (sample_id,) = await stores.answer(caller())

    async def give(number: int) -> bool:
        judgement = Thumb(sample_id=sample_id, up=True)
        try:
            await stores.feedback.give(api_key(), judgement, idempotency_key=f"f{number}")
        except LimitReached:
            return False
        return True

    given = await asyncio.gather(*(give(number) for number in range(MAX_PER_ANSWER + 20)))
    assert sum(given) == await num_stored(client, keys) == 64


async def test_an_answer_is_kept_with_its_prompt(stores: Stores, client: Redis, keys: RunKeys) -> None:
    (sample_id,) = await stores.answer(caller(), response="blue", version=4, prompt="which colour?")
    fields = await command(client, "HGETALL", owned.answer(keys, sample_id))
    assert fields[b"response"] == b"blue"
    assert json.loads(fields[b"prompt"]) == [{"role": "user", "content": "which colour?"}]
    assert (fields[b"owner"].decode(), fields[b"version"], fields[b"claim"].decode()) == (
        caller().owner,
        b"4",
        sample_id,
    )
    assert await command(client, "TTL", owned.answer(keys, sample_id)) > 3000


@pytest.mark.parametrize(("response", "prompt"), [("it is secret", "what?"), ("this", "my secret")])
async def test_an_answer_with_personal_data_in_it_or_in_its_prompt_is_not_kept(
    stores: Stores, client: Redis, keys: RunKeys, response: str, prompt: str
) -> None:
    (sample_id,) = await stores.answer(caller(), response=response, prompt=prompt)
    assert await command(client, "EXISTS", owned.answer(keys, sample_id)) == 0


@pytest.mark.parametrize(
    ("policy", "prompt", "response"),
    [(Policy.REDACT, "my [EMAIL]", "the [EMAIL]"), (Policy.TAG, "my secret", "the secret")],
)
async def test_other_policies_keep_it_with_the_kinds_that_were_found(
    client: Redis, keys: RunKeys, policy: Policy, prompt: str, response: str
) -> None:
    stores = Stores(client, keys, policy=policy)
    (sample_id,) = await stores.answer(caller(), response="the secret", prompt="my secret")
    fields = await command(client, "HGETALL", owned.answer(keys, sample_id))
    assert json.loads(fields[b"prompt"])[0]["content"] == prompt
    assert (fields[b"response"].decode(), fields[b"pii_kinds"]) == (response, b"email")


async def test_an_answer_is_not_kept_where_the_scanner_fails(stores: Stores, client: Redis, keys: RunKeys) -> None:
    stores.scanner.fails = True
    (sample_id,) = await stores.answer(caller())
    assert await command(client, "EXISTS", owned.answer(keys, sample_id)) == 0


async def test_no_refusal_repeats_what_was_sent(stores: Stores) -> None:
    (sample_id,) = await stores.answer(caller())
    judgements: list[Judgement] = [
        Correction(sample_id=sample_id, text=b"canary\x00"),
        Correction(sample_id="canary", text=b"canary"),
        Correction(sample_id=sample_id, text=b"canary\xff"),
        Ranking(sample_ids=("canary", "canary")),
    ]
    for judgement in judgements:
        with pytest.raises(OnlineRLHFError) as refusal:
            await stores.feedback.give(api_key(), judgement, idempotency_key="f")
        assert "canary" not in str(refusal.value)
