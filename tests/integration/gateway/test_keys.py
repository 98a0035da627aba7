"""API keys on real Redis servers: what is stored, and how fast a change reaches every gateway."""

import asyncio
import json
import time
from collections.abc import Callable

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from onlinerlhf.core.errors import AlreadyExists, InvalidInput, NotFound, Unauthenticated
from onlinerlhf.gateway.access.authentication import Authenticator
from onlinerlhf.gateway.access.callers import KeyClass, Limits, Scope
from onlinerlhf.gateway.access.degraded import RedisAway
from onlinerlhf.gateway.access.key_format import new_key
from onlinerlhf.gateway.access.keys import KeyStore
from onlinerlhf.runtime import redis
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Patience, command
from redis_servers import RedisServer, redis_binaries

pytestmark = pytest.mark.parametrize("redis_binary", redis_binaries(), indirect=True)

BOTH = frozenset({Scope.GENERATE, Scope.FEEDBACK})


@pytest.fixture
def store(client: Redis, keys: RunKeys) -> KeyStore:
    return KeyStore(client, keys)


async def test_a_created_key_is_stored_as_a_digest_and_a_record(store: KeyStore, client: Redis, keys: RunKeys) -> None:
    limits = Limits(requests_per_minute=5)
    key, text = await store.create("ci", KeyClass.PLAYGROUND, "acme", BOTH, limits)
    assert await store.get(key.key_id) == key
    assert (key.name, key.organisation, key.scopes, key.limits) == ("ci", "acme", BOTH, limits)
    stored = await command(client, "HGET", keys.key("api_keys"), key.key_id)
    assert text.encode() not in stored
    assert text[21:53].encode() not in stored
    assert len(json.loads(stored)["sha256"]) == 64


async def test_keys_are_listed_oldest_first_with_the_revoked_ones(client: Redis, keys: RunKeys) -> None:
    seconds = iter([10.0, 20.0, 30.0, 40.0])
    store = KeyStore(client, keys, clock=lambda: next(seconds))
    for name in ("a", "b", "c"):
        await store.create(name, KeyClass.PRODUCTION, "", BOTH)
    first = (await store.list())[0]
    assert (await store.revoke(first.key_id)).revoked_at_seconds == 40.0
    assert (await store.revoke(first.key_id)).revoked_at_seconds == 40.0
    assert [(key.name, key.revoked_at_seconds) for key in await store.list()] == [("a", 40.0), ("b", None), ("c", None)]


async def test_every_change_moves_the_version_and_what_changes_nothing_does_not(store: KeyStore) -> None:
    assert await store.version() == b""
    key, _ = await store.create("ci", KeyClass.PLAYGROUND, "", BOTH)
    assert await store.version() == b"1"
    await store.set_limits(key.key_id, Limits(max_concurrent=3))
    await store.set_limits(key.key_id, Limits(max_concurrent=3))
    await store.revoke(key.key_id)
    await store.revoke(key.key_id)
    assert await store.version() == b"3"
    record = await store.get(key.key_id)
    assert record.limits == Limits(max_concurrent=3)
    assert record.revoked_at_seconds is not None


async def test_of_changes_at_once_none_is_lost(store: KeyStore) -> None:
    key, _ = await store.create("ci", KeyClass.PLAYGROUND, "", BOTH)
    await asyncio.gather(
        store.revoke(key.key_id), *(store.set_limits(key.key_id, Limits(max_concurrent=n)) for n in range(1, 6))
    )
    record = await store.get(key.key_id)
    assert record.revoked_at_seconds is not None
    assert record.limits is not None


async def test_a_key_made_elsewhere_can_be_registered_once(store: KeyStore) -> None:
    text = new_key(KeyClass.PRODUCTION)
    key = await store.register(text.text, name="old", organisation="", scopes=BOTH)
    assert (key.key_id, key.key_class) == (text.key_id, KeyClass.PRODUCTION)
    with pytest.raises(AlreadyExists):
        await store.register(text.text, name="old", organisation="", scopes=BOTH)
    with pytest.raises(InvalidInput) as refused:
        await store.register(text.text + "x", name="old", organisation="", scopes=BOTH)
    assert text.text not in str(refused.value)


async def test_bad_names_scopes_and_limits_are_refused(store: KeyStore) -> None:
    for name in ("", " a", "a" * 65, "a\nb"):
        with pytest.raises(InvalidInput):
            await store.create(name, KeyClass.PLAYGROUND, "", BOTH)
    with pytest.raises(InvalidInput, match="at least one scope"):
        await store.create("ci", KeyClass.PLAYGROUND, "", frozenset())
    for number in (0, -1, 100_000_001):
        with pytest.raises(InvalidInput, match="from 1 to 100,000,000"):
            await store.create("ci", KeyClass.PLAYGROUND, "", BOTH, Limits(tokens_per_minute=number))
    assert await store.list() == ()


async def test_a_key_given_in_place_of_its_id_is_not_repeated_in_the_error(store: KeyStore) -> None:
    _, text = await store.create("ci", KeyClass.PLAYGROUND, "", BOTH)
    with pytest.raises(NotFound) as missing:
        await store.revoke(text)
    assert text not in str(missing.value)


async def test_a_revocation_holds_on_every_gateway_within_five_seconds(
    client: Redis, keys: RunKeys, run_config: RunConfig
) -> None:
    other = redis.connect(run_config)
    gateways = [Authenticator(KeyStore(each, keys), Patience(Health("test"))) for each in (client, other)]
    store, stop = KeyStore(client, keys), asyncio.Event()
    key, text = await store.create("ci", KeyClass.PRODUCTION, "", BOTH)
    async with asyncio.TaskGroup() as group:
        for gateway in gateways:
            group.create_task(gateway.run(stop))
        for _ in range(20):
            for gateway in gateways:
                assert (await gateway.authenticate(text, scope=Scope.GENERATE)).key_id == key.key_id
            await asyncio.sleep(0.05)
        await store.revoke(key.key_id)
        revoked_at, refused_after = time.monotonic(), []
        for gateway in gateways:
            while True:
                try:
                    await gateway.authenticate(text, scope=Scope.GENERATE)
                except Unauthenticated:
                    refused_after.append(time.monotonic() - revoked_at)
                    break
                assert time.monotonic() - revoked_at < 5
                await asyncio.sleep(0.02)
        stop.set()
    assert max(refused_after) < 4
    await other.aclose()


async def test_a_changed_limit_reaches_a_running_gateway(client: Redis, keys: RunKeys, patience: Patience) -> None:
    store, gateway, stop = KeyStore(client, keys), Authenticator(KeyStore(client, keys), patience), asyncio.Event()
    key, text = await store.create("ci", KeyClass.PRODUCTION, "", BOTH)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(gateway.run(stop))
        assert (await gateway.authenticate(text, scope=Scope.GENERATE)).limits is None
        await store.set_limits(key.key_id, Limits(max_concurrent=2))
        while (await gateway.authenticate(text, scope=Scope.GENERATE)).limits is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        stop.set()


async def test_the_last_use_is_noted(
    client: Redis, keys: RunKeys, patience: Patience, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onlinerlhf.gateway.access.authentication.NOTE_USED_SECONDS", 0.0)
    store, stop = KeyStore(client, keys), asyncio.Event()
    gateway = Authenticator(store, patience, wall_clock=lambda: 1234.5)
    key, text = await store.create("ci", KeyClass.PRODUCTION, "", BOTH)
    await gateway.authenticate(text, scope=Scope.GENERATE)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(gateway.run(stop))
        while not await store.last_used():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        stop.set()
    assert await store.last_used() == {key.key_id: 1234.0}


async def test_when_redis_goes_playground_is_unavailable_production_goes_on_and_all_is_well_when_it_is_back(
    new_redis_server: Callable[..., RedisServer], keys: RunKeys, patience: Patience, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onlinerlhf.gateway.access.authentication.FRESH_SECONDS", 0.5)
    server = new_redis_server()
    client = redis.connect(RunConfig(redis_url=SecretStr(server.url)))
    store, stop = KeyStore(client, keys), asyncio.Event()
    gateway = Authenticator(store, patience)
    _, playground = await store.create("one", KeyClass.PLAYGROUND, "", BOTH)
    _, production = await store.create("two", KeyClass.PRODUCTION, "", BOTH)
    _, never_seen = await store.create("three", KeyClass.PRODUCTION, "", BOTH)
    for text in (playground, production):
        await gateway.authenticate(text, scope=Scope.GENERATE)
    server.kill()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(gateway.run(stop))
        await asyncio.sleep(1.2)
        for _ in range(20):
            started = time.monotonic()
            for text in (playground, never_seen):
                with pytest.raises(RedisAway):
                    await gateway.authenticate(text, scope=Scope.GENERATE)
            await gateway.authenticate(production, scope=Scope.GENERATE)
            with pytest.raises(Unauthenticated):
                await gateway.authenticate(production[:-1], scope=Scope.GENERATE)
            assert time.monotonic() - started < 0.4
            await asyncio.sleep(0.1)
        server.start()
        for text in (playground, production, never_seen):
            while True:
                try:
                    await gateway.authenticate(text, scope=Scope.GENERATE)
                    break
                except RedisAway:
                    await asyncio.sleep(0.05)
        stop.set()
    await client.aclose()
