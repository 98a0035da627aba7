"""Whose key it is, without asking Redis each time, and never for long without Redis.

    form and checksum -> record by key id (memory, else Redis) -> SHA-256 compared in constant time -> revoked? -> scope

What is in memory counts while Redis has said within FRESH_SECONDS that no key has changed: a background task asks once
a second, and any change makes all be forgotten. So a revocation holds on every gateway within 5 s, a gateway that is
cut off from Redis excepted: there, production keys it knows go on for `serve_without_redis_seconds`, and every other
call is refused as unavailable.
"""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from onlinerlhf.core.errors import PermissionDenied, Unauthenticated, Unavailable
from onlinerlhf.gateway.access.callers import ApiKey, KeyClass, Scope
from onlinerlhf.gateway.access.degraded import RedisAway
from onlinerlhf.gateway.access.impatience import Impatience
from onlinerlhf.gateway.access.key_format import parse
from onlinerlhf.gateway.access.keys import KeyRecord, KeyStore
from onlinerlhf.runtime.redis import Patience
from onlinerlhf.runtime.tasks import set_within

T = TypeVar("T")

POLL_SECONDS: Final = 1.0
LOOK_UP_SECONDS: Final = 0.5
"""How long to try again where Redis cannot be reached."""
FRESH_SECONDS: Final = 3.0
AWAY_RETRY_SECONDS: Final = 2.0
"""Callers do not ask Redis again for so long after it gave no answer; longer than from one poll to the next."""
NOTE_USED_SECONDS: Final = 30.0
MAX_KNOWN: Final = 10_000
"""Keys in memory; as many again that do not exist."""

_REFUSED: Final = "a valid API key is required, as `authorization: Bearer <key>`"
_NOBODY: Final = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    record: KeyRecord | None
    """None: there is no such key."""
    confirmed_at: float


class Authenticator:
    """Run it in the background."""

    def __init__(
        self,
        store: KeyStore,
        patience: Patience,
        *,
        serve_without_redis_seconds: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._patience = patience
        self._serve_without_redis_seconds = serve_without_redis_seconds
        self._clock = clock
        self._wall_clock = wall_clock
        self._impatience = Impatience()
        self._version: bytes | None = None
        self._confirmed_at = float("-inf")
        """When Redis was last asked, and said that `_version` is the newest."""
        self._ask_again_at = float("-inf")
        self._known: dict[str, _Known] = {}
        self._unknown: dict[str, _Known] = {}
        self._used: dict[str, float] = {}
        self._noted_at = self._clock()

    async def authenticate(self, credential: str | None, *, scope: Scope) -> ApiKey:
        """Raises Unauthenticated, PermissionDenied or RedisAway."""
        text = parse(credential)
        if text is None:
            raise Unauthenticated(_REFUSED)
        known = await self._find(text.key_id)
        record = known.record
        matches = hmac.compare_digest(text.digest, record.digest if record is not None else _NOBODY)
        if record is None or not matches or record.key.revoked_at_seconds is not None:
            raise Unauthenticated(_REFUSED)
        if not self._is_fresh(known) and not self._may_serve_alone(known, record.key):
            raise self._away()
        if scope not in record.key.scopes:
            raise PermissionDenied(f"this API key lacks the scope {scope}")
        self._used[record.key.key_id] = self._wall_clock()
        return record.key

    async def run(self, stop: asyncio.Event) -> None:
        """Look for changes until `stop`."""
        while not stop.is_set():
            asked_at = self._clock()
            with suppress(Unavailable):
                self._observe(await self._ask("look for changed API keys", self._store.version), asked_at)
                await self._note_used()
            await set_within(stop, POLL_SECONDS)

    async def _find(self, key_id: str) -> _Known:
        known = self._known.get(key_id) or self._unknown.get(key_id)
        if known is not None and self._is_fresh(known):
            return known
        asked_at = self._clock()
        if asked_at >= self._ask_again_at:
            with suppress(Unavailable):
                version, record = await self._ask("look up an API key", lambda: self._store.look_up(key_id))
                if version != self._version:
                    self._forget(version)
                found = _Known(record=record, confirmed_at=asked_at)
                _remember(self._known if record is not None else self._unknown, key_id, found)
                return found
        if known is None or known.record is None:
            raise self._away()
        return known

    def _observe(self, version: bytes, asked_at: float) -> None:
        if version != self._version:
            self._forget(version)
        self._confirmed_at = asked_at

    def _forget(self, version: bytes) -> None:
        # What was confirmed is what was known before.
        self._version, self._confirmed_at = version, float("-inf")
        self._known.clear()
        self._unknown.clear()

    def _age(self, known: _Known) -> float:
        return self._clock() - max(known.confirmed_at, self._confirmed_at)

    def _is_fresh(self, known: _Known) -> bool:
        return self._age(known) <= FRESH_SECONDS

    def _may_serve_alone(self, known: _Known, key: ApiKey) -> bool:
        return key.key_class is KeyClass.PRODUCTION and self._age(known) < self._serve_without_redis_seconds

    async def _ask(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        try:
            reply = await self._patience(what, lambda: self._impatience(call), give_up_seconds=LOOK_UP_SECONDS)
        except Unavailable:
            self._ask_again_at = self._clock() + AWAY_RETRY_SECONDS
            raise
        self._ask_again_at = float("-inf")
        return reply

    async def _note_used(self) -> None:
        if self._clock() - self._noted_at >= NOTE_USED_SECONDS:
            used, self._used, self._noted_at = self._used, {}, self._clock()
            await self._ask("note which API keys were used", lambda: self._store.note_used(used))

    def _away(self) -> RedisAway:
        return RedisAway("API keys cannot be checked now", retry_after_seconds=AWAY_RETRY_SECONDS)


def _remember(known: dict[str, _Known], key_id: str, found: _Known) -> None:
    """The oldest goes where there are too many."""
    known.pop(key_id, None)
    while len(known) >= MAX_KNOWN:
        del known[next(iter(known))]
    known[key_id] = found
