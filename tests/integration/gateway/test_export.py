"""Everything held of a user."""

import json
from typing import Any

import pytest
from redis.asyncio import Redis

from integration.gateway.receiving import HASH_KEY, Stores, api_key, caller
from integration.gateway.test_snapshot import keep_prompt
from onlinerlhf.gateway.access.identity import HashKey
from onlinerlhf.gateway.kept.feedback import Correction
from onlinerlhf.gateway.rights.export_user import UserExport
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Patience, command


@pytest.fixture
def stores(client: Redis, keys: RunKeys) -> Stores:
    """One gateway's."""
    return Stores(client, keys)


@pytest.fixture
def user_export(client: Redis, keys: RunKeys, patience: Patience) -> UserExport:
    """Of the run."""
    return UserExport(client, keys, HashKey(client, keys, HASH_KEY), patience)


async def pieces(user_export: UserExport, user: str) -> list[tuple[str, dict[str, Any]]]:
    return [(kind, json.loads(text)) async for kind, text in user_export.export("acme", user)]


async def test_a_user_gets_every_kind_of_what_is_held(
    client: Redis, keys: RunKeys, stores: Stores, user_export: UserExport
) -> None:
    for user in ("ada", "grace"):
        (sample_id,) = await stores.answer(caller(user), response=f"answer for {user}")
        await keep_prompt(client, keys, caller(user), sample_id, f"question of {user}", split="valid")
        correction = Correction(sample_id=sample_id, text=f"better for {user}".encode())
        await stores.feedback.give(api_key(), correction, idempotency_key=user)
        for name, state in ((sample_id, "trained:7"), (f"{sample_id}.1", "dropped:stale")):
            await command(client, "HSET", keys.ledger_owners, name, f"{caller(user).owner}|1000")
            await command(client, "HSET", keys.ledger_states, name, state)
    found = await pieces(user_export, "ada")
    kinds = [kind for kind, _ in found]
    assert kinds == ["withdrawal", "prompt", "answer", "feedback", "receipt", "sample_state", "sample_state"]
    by_kind = dict(found)
    assert by_kind["withdrawal"] == {"state": "none", "seconds": None}
    assert (by_kind["prompt"]["text"], by_kind["prompt"]["split"]) == ("question of ada", "valid")
    assert by_kind["answer"]["response"] == "answer for ada"
    assert by_kind["feedback"]["text"] == "better for ada"
    assert by_kind["receipt"]["policy_versions"] == [3]
    states = {
        (piece["state"], piece["drop_reason"], piece["trained_version"]) for kind, piece in found if kind[0] == "s"
    }
    assert states == {("trained", None, 7), ("dropped", "stale", None)}
    assert "grace" not in json.dumps(found)


async def test_of_a_stranger_there_is_nothing(user_export: UserExport) -> None:
    assert await pieces(user_export, "nobody") == [("withdrawal", {"state": "none", "seconds": None})]


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("erased", {"state": "erased", "seconds": None}),
        ("withdrawn:1700000000", {"state": "withdrawn", "seconds": 1700000000}),
    ],
)
async def test_whether_consent_was_taken_back_is_told(
    client: Redis, keys: RunKeys, user_export: UserExport, word: str, shown: dict[str, Any]
) -> None:
    await command(client, "HSET", keys.blocked, caller().owner, word)
    assert await pieces(user_export, "ada") == [("withdrawal", shown)]


async def test_a_record_that_cannot_be_read_is_named_and_the_rest_follows(
    client: Redis, keys: RunKeys, stores: Stores, user_export: UserExport
) -> None:
    (sample_id,) = await stores.answer(caller())
    await command(client, "SET", keys.prompt(sample_id), b"\xff\xff")
    await command(client, "ZADD", keys.prompts_of(caller().owner), 1, sample_id)
    found = dict(await pieces(user_export, "ada"))
    assert found["prompt"] == {"prompt_id": sample_id, "problem": "the record cannot be read"}
    assert found["answer"]["response"] == "an answer"
