"""The form of API keys, and what the authenticator makes of a store that answers, changes, or is away."""

import asyncio
import re
import zlib
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

import pytest

from onlinerlhf.core.errors import PermissionDenied, Unauthenticated, Unavailable
from onlinerlhf.gateway.access.authentication import MAX_KNOWN, Authenticator
from onlinerlhf.gateway.access.callers import ApiKey, KeyClass, Scope
from onlinerlhf.gateway.access.degraded import RedisAway
from onlinerlhf.gateway.access.key_format import BASE62, KeyText, new_key, parse
from onlinerlhf.gateway.access.keys import KeyRecord, KeyStore
from onlinerlhf.runtime.redis import Patience

T = TypeVar("T")
VALID = "orlhf_pg_0123456789ABabcdefghijklmnopqrstuvwxyzABCDEF"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeStore:
    """Holds records in memory and counts how often it is asked."""

    def __init__(self) -> None:
        self.records: dict[str, KeyRecord] = {}
        self.num_changes = 0
        self.num_look_ups = 0
        self.is_away = False

    def add(self, key_class: KeyClass, *scopes: Scope) -> str:
        text = new_key(key_class)
        self.put(text, *scopes)
        return text.text

    def put(self, text: KeyText, *scopes: Scope, revoked_at_seconds: float | None = None) -> None:
        key = ApiKey(
            key_id=text.key_id,
            name="test",
            key_class=text.key_class,
            organisation="",
            scopes=frozenset(scopes or (Scope.GENERATE,)),
            created_at_seconds=1.0,
            revoked_at_seconds=revoked_at_seconds,
        )
        self.records[text.key_id] = KeyRecord(key=key, digest=text.digest)
        self.num_changes += 1

    async def look_up(self, key_id: str) -> tuple[bytes, KeyRecord | None]:
        self.num_look_ups += 1
        return await self.version(), self.records.get(key_id)

    async def version(self) -> bytes:
        if self.is_away:
            raise Unavailable("away")
        return str(self.num_changes).encode()

    async def note_used(self, seconds: dict[str, float]) -> None:
        pass


async def no_patience(what: str, call: Callable[[], Awaitable[T]], *, give_up_seconds: float | None = None) -> T:
    return await call()


def authenticator(store: FakeStore, clock: Clock, *, serve_without_redis_seconds: float = 300.0) -> Authenticator:
    return Authenticator(
        cast(KeyStore, store),
        cast(Patience, no_patience),
        serve_without_redis_seconds=serve_without_redis_seconds,
        clock=clock,
    )


async def poll(checker: Authenticator) -> None:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(checker.run(stop))
        await asyncio.sleep(0)
        stop.set()


def test_a_new_key_has_a_known_prefix_an_id_a_secret_and_a_checksum() -> None:
    key = new_key(KeyClass.PLAYGROUND)
    assert re.fullmatch(r"orlhf_pg_[0-9A-Za-z]{50}", key.text)
    assert key.text[9:21] == key.key_id
    assert new_key(KeyClass.PRODUCTION).text.startswith("orlhf_pr_")
    assert new_key(KeyClass.PLAYGROUND).text != key.text


def test_the_checksum_is_crc32_of_all_before_it_in_base_62() -> None:
    number = zlib.crc32(VALID.encode())
    expected = ""
    while number:
        number, digit = divmod(number, 62)
        expected = BASE62[digit] + expected
    key = parse(VALID + expected.rjust(6, "0"))
    assert key is not None
    assert (key.key_class, key.key_id) == (KeyClass.PLAYGROUND, "0123456789AB")


def test_one_changed_character_anywhere_is_noticed_without_a_look_up() -> None:
    text = new_key(KeyClass.PRODUCTION).text
    assert parse(text) is not None
    for place in range(9, len(text)):
        other = "A" if text[place] != "A" else "B"
        assert parse(text[:place] + other + text[place + 1 :]) is None


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "orlhf_pg_",
        "sk-abc",
        "orlhf_xx_" + "a" * 50,
        "orlhf_pg_" + "é" * 50,
        "orlhf_pg_" + "０" * 50,
        "a" * 10**6,
    ],
)
def test_what_is_no_key_is_refused(text: str | None) -> None:
    assert parse(text) is None


def test_a_key_newline_is_no_key() -> None:
    assert parse(new_key(KeyClass.PLAYGROUND).text + "\n") is None


def test_a_key_does_not_show_in_its_repr() -> None:
    key = new_key(KeyClass.PLAYGROUND)
    assert key.text not in repr(key)


async def test_a_good_key_is_looked_up_once_while_polls_say_that_nothing_changed() -> None:
    store, clock = FakeStore(), Clock()
    checker, text = authenticator(store, clock), store.add(KeyClass.PLAYGROUND)
    for _ in range(100):
        assert (await checker.authenticate(text, scope=Scope.GENERATE)).name == "test"
        clock.now += 1.0
        await poll(checker)
    assert store.num_look_ups == 1


async def test_unknown_wrong_revoked_and_malformed_keys_get_one_and_the_same_error() -> None:
    store, clock = FakeStore(), Clock()
    good, revoked = store.add(KeyClass.PLAYGROUND), new_key(KeyClass.PLAYGROUND)
    store.put(revoked, revoked_at_seconds=2.0)
    other = new_key(KeyClass.PLAYGROUND)
    wrong = KeyText(key_class=other.key_class, key_id=good[9:21], text=other.text)
    store.put(wrong)
    checker = authenticator(store, clock)
    messages = set()
    for text in (None, "nonsense", good, revoked.text, new_key(KeyClass.PRODUCTION).text):
        with pytest.raises(Unauthenticated) as refused:
            await checker.authenticate(text, scope=Scope.GENERATE)
        messages.add(str(refused.value))
    assert len(messages) == 1
    assert store.num_look_ups == 3


async def test_a_key_without_the_scope_is_denied() -> None:
    store = FakeStore()
    text = store.add(KeyClass.PLAYGROUND, Scope.GENERATE)
    with pytest.raises(PermissionDenied, match="lacks the scope feedback"):
        await authenticator(store, Clock()).authenticate(text, scope=Scope.FEEDBACK)


async def test_a_change_is_seen_by_the_next_poll() -> None:
    store, clock = FakeStore(), Clock()
    text = new_key(KeyClass.PLAYGROUND)
    store.put(text)
    checker = authenticator(store, clock)
    await checker.authenticate(text.text, scope=Scope.GENERATE)
    store.put(text, revoked_at_seconds=5.0)
    await poll(checker)
    with pytest.raises(Unauthenticated):
        await checker.authenticate(text.text, scope=Scope.GENERATE)


async def test_without_a_poll_what_is_in_memory_counts_for_three_seconds() -> None:
    store, clock = FakeStore(), Clock()
    text = new_key(KeyClass.PRODUCTION)
    store.put(text)
    checker = authenticator(store, clock)
    await checker.authenticate(text.text, scope=Scope.GENERATE)
    store.put(text, revoked_at_seconds=5.0)
    clock.now += 2.9
    await checker.authenticate(text.text, scope=Scope.GENERATE)
    clock.now += 0.2
    with pytest.raises(Unauthenticated):
        await checker.authenticate(text.text, scope=Scope.GENERATE)


async def test_a_key_made_after_it_was_tried_is_known_after_a_poll() -> None:
    store, clock = FakeStore(), Clock()
    checker, text = authenticator(store, clock), new_key(KeyClass.PLAYGROUND)
    with pytest.raises(Unauthenticated):
        await checker.authenticate(text.text, scope=Scope.GENERATE)
    store.put(text)
    await poll(checker)
    assert (await checker.authenticate(text.text, scope=Scope.GENERATE)).key_id == text.key_id


async def test_invented_keys_neither_fill_the_memory_nor_push_real_ones_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onlinerlhf.gateway.access.authentication.MAX_KNOWN", 10)
    assert MAX_KNOWN == 10_000
    store, clock = FakeStore(), Clock()
    checker, text = authenticator(store, clock), store.add(KeyClass.PLAYGROUND)
    await checker.authenticate(text, scope=Scope.GENERATE)
    for _ in range(50):
        with pytest.raises(Unauthenticated):
            await checker.authenticate(new_key(KeyClass.PLAYGROUND).text, scope=Scope.GENERATE)
    await checker.authenticate(text, scope=Scope.GENERATE)
    assert store.num_look_ups == 51
    assert len(checker._unknown) == 10


async def test_while_redis_is_away_a_playground_key_is_refused_as_unavailable() -> None:
    store, clock = FakeStore(), Clock()
    checker, text = authenticator(store, clock), store.add(KeyClass.PLAYGROUND)
    await checker.authenticate(text, scope=Scope.GENERATE)
    store.is_away = True
    clock.now += 3.1
    with pytest.raises(RedisAway) as refused:
        await checker.authenticate(text, scope=Scope.GENERATE)
    assert refused.value.retry_after_seconds == 2.0


async def test_while_redis_is_away_a_production_key_verified_before_is_served_for_five_minutes() -> None:
    store, clock = FakeStore(), Clock()
    checker, text = authenticator(store, clock), store.add(KeyClass.PRODUCTION)
    await checker.authenticate(text, scope=Scope.GENERATE)
    store.is_away = True
    for seconds in (10.0, 289.0):
        clock.now += seconds
        await poll(checker)
        assert (await checker.authenticate(text, scope=Scope.GENERATE)).name == "test"
    clock.now += 1.0
    with pytest.raises(RedisAway):
        await checker.authenticate(text, scope=Scope.GENERATE)
    store.is_away = False
    await poll(checker)
    assert (await checker.authenticate(text, scope=Scope.GENERATE)).name == "test"


async def test_while_redis_is_away_an_unknown_key_is_unavailable_and_redis_is_not_asked_for_each() -> None:
    store, clock = FakeStore(), Clock()
    checker = authenticator(store, clock)
    store.is_away = True
    for _ in range(100):
        with pytest.raises(RedisAway):
            await checker.authenticate(new_key(KeyClass.PRODUCTION).text, scope=Scope.GENERATE)
    assert store.num_look_ups == 1


async def test_an_old_reply_that_comes_late_does_not_outlive_the_next_poll() -> None:
    store, clock = FakeStore(), Clock()
    text = new_key(KeyClass.PRODUCTION)
    store.put(text)
    checker = authenticator(store, clock)
    look_up, asked, late = store.look_up, asyncio.Event(), asyncio.Event()

    async def slow(key_id: str) -> tuple[bytes, KeyRecord | None]:
        reply = await look_up(key_id)
        asked.set()
        await late.wait()
        return reply

    store.look_up = slow  # type: ignore[method-assign]
    async with asyncio.TaskGroup() as group:
        answer = group.create_task(checker.authenticate(text.text, scope=Scope.GENERATE))
        await asked.wait()
        store.put(text, revoked_at_seconds=5.0)
        await poll(checker)
        late.set()
    assert answer.result().key_id == text.key_id
    await poll(checker)
    with pytest.raises(Unauthenticated):
        await checker.authenticate(text.text, scope=Scope.GENERATE)
