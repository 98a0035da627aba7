"""API keys at rest: a hash of records, and one counter that every change moves.

onlinerlhf:{run}:api_keys           key id -> record (JSON): the SHA-256 of the key, and what the key may do
onlinerlhf:{run}:api_keys:version   moved by every change; gateways poll it and forget what they know
onlinerlhf:{run}:api_keys:used      key id -> second of its last use, to within half a minute
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from redis.asyncio import Redis

from onlinerlhf.core.errors import AlreadyExists, InvalidInput, LimitReached, NotFound
from onlinerlhf.gateway.access.callers import MAX_LIMIT, ApiKey, KeyClass, Limits, Scope
from onlinerlhf.gateway.access.key_format import KeyText, new_key, parse
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Script, command

MAX_NAME_LENGTH: Final = 64
_MAX_TRIES: Final = 20

_CHANGE: Final = Script("""
-- KEYS records, version. ARGV key id, the record as it was ('': none), as it shall be.
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('INCR', KEYS[2])
return 1
""")

_LOOK_UP: Final = Script("""
-- KEYS records, version. ARGV key id. Record and version are of one moment.
return {redis.call('GET', KEYS[2]) or '', redis.call('HGET', KEYS[1], ARGV[1]) or ''}
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """What is stored of a key."""

    key: ApiKey
    digest: bytes
    """SHA-256 of the key as its holder sends it."""


class KeyStore:
    """The keys of a run. Methods raise RedisError or OSError while Redis is away."""

    def __init__(self, redis: Redis, keys: RunKeys, *, clock: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._records = keys.key("api_keys")
        self._version = keys.key("api_keys", "version")
        self._used = keys.key("api_keys", "used")
        self._clock = clock

    async def create(
        self,
        name: str,
        key_class: KeyClass,
        organisation: str,
        scopes: frozenset[Scope],
        limits: Limits | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key: its record, and the key itself, which exists nowhere else."""
        text = new_key(key_class)
        return await self._add(text, name, organisation, scopes, limits), text.text

    async def register(
        self, text: str, *, name: str, organisation: str, scopes: frozenset[Scope], limits: Limits | None = None
    ) -> ApiKey:
        """Make a key known that was made before, here or elsewhere. Raises AlreadyExists where its id is taken."""
        parsed = parse(text)
        if parsed is None:
            raise InvalidInput("this is not an API key: its form or its checksum is wrong", reason="bad_key")
        return await self._add(parsed, name, organisation, scopes, limits)

    async def list(self) -> tuple[ApiKey, ...]:
        """All keys, revoked ones included, the oldest first."""
        reply = await command(self._redis, "HGETALL", self._records)
        records = reply.values() if isinstance(reply, dict) else reply[1::2]
        return tuple(
            sorted((_load(each).key for each in records), key=lambda key: (key.created_at_seconds, key.key_id))
        )

    async def get(self, key_id: str) -> ApiKey:
        """Raises NotFound."""
        _, record = await self.look_up(key_id)
        if record is None:
            raise NotFound(f"there is no key {_printable(key_id)}; `onlinerlhf keys list` shows all")
        return record.key

    async def revoke(self, key_id: str) -> ApiKey:
        """From now on the key is refused, within 5 s by every gateway. A second time changes nothing."""
        return await self._change(
            key_id,
            lambda key: key if key.revoked_at_seconds is not None else replace(key, revoked_at_seconds=self._clock()),
        )

    async def set_limits(self, key_id: str, limits: Limits | None) -> ApiKey:
        """Every gateway goes by them within 5 s."""
        check_limits(limits)
        return await self._change(key_id, lambda key: replace(key, limits=limits))

    async def look_up(self, key_id: str) -> tuple[bytes, KeyRecord | None]:
        """The version of the keys, and a key's record at that version."""
        version, record = await _LOOK_UP.run(self._redis, [self._records, self._version], [key_id])
        return bytes(version), _load(record) if record else None

    async def version(self) -> bytes:
        """Moved by every change of any key; empty before the first."""
        return bytes(await command(self._redis, "GET", self._version) or b"")

    async def note_used(self, seconds: Mapping[str, float]) -> None:
        """Key id -> when it was used last."""
        if seconds:
            fields = [part for key_id, second in seconds.items() for part in (key_id, int(second))]
            await command(self._redis, "HSET", self._used, *fields)

    async def last_used(self) -> dict[str, float]:
        """Key id -> when it was used last, of those that ever were."""
        reply = await command(self._redis, "HGETALL", self._used)
        pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
        return {key_id.decode("ascii"): float(second) for key_id, second in pairs}

    async def _add(
        self, text: KeyText, name: str, organisation: str, scopes: frozenset[Scope], limits: Limits | None
    ) -> ApiKey:
        _check_name(name, "name")
        if organisation:
            _check_name(organisation, "organisation")
        if not scopes:
            raise InvalidInput("a key needs at least one scope: generate, feedback, admin", reason="no_scope")
        check_limits(limits)
        key = ApiKey(
            key_id=text.key_id,
            name=name,
            key_class=text.key_class,
            organisation=organisation,
            scopes=scopes,
            created_at_seconds=self._clock(),
            limits=limits,
        )
        record = _dump(KeyRecord(key=key, digest=text.digest))
        if not await _CHANGE.run(self._redis, [self._records, self._version], [key.key_id, b"", record]):
            raise AlreadyExists(f"there is a key {key.key_id} already")
        return key

    async def _change(self, key_id: str, change: Callable[[ApiKey], ApiKey]) -> ApiKey:
        """Compare and set, so that of two changes at once neither is lost."""
        for _ in range(_MAX_TRIES):
            before = await command(self._redis, "HGET", self._records, key_id)
            if before is None:
                raise NotFound(f"there is no key {_printable(key_id)}; `onlinerlhf keys list` shows all")
            record = _load(before)
            key = change(record.key)
            if key == record.key:
                return key
            after = _dump(replace(record, key=key))
            if await _CHANGE.run(self._redis, [self._records, self._version], [key_id, before, after]):
                return key
        raise LimitReached(f"key {key_id} was changed by others {_MAX_TRIES} times while this change was made")


def check_limits(limits: Limits | None) -> None:
    """Raises InvalidInput where a number is out of range."""
    for name, number in asdict(limits).items() if limits is not None else ():
        if number is not None and not 1 <= number <= MAX_LIMIT:
            raise InvalidInput(f"{name} is {number}; it must be from 1 to {MAX_LIMIT:,}", reason="bad_limit")


def _check_name(value: str, what: str) -> None:
    if not 1 <= len(value) <= MAX_NAME_LENGTH or not value.isprintable() or value != value.strip():
        raise InvalidInput(f"the {what} of a key is 1 to {MAX_NAME_LENGTH} printable characters", reason=f"bad_{what}")


def _printable(key_id: str) -> str:
    """A key itself may have been given in place of its id; it must not be repeated."""
    return (
        key_id if len(key_id) <= len("k" * 12) and key_id.isalnum() else "of that id (an id is 12 letters and digits)"
    )


def _dump(record: KeyRecord) -> bytes:
    fields: dict[str, Any] = asdict(record.key)
    fields["scopes"] = sorted(record.key.scopes)
    return json.dumps({**fields, "sha256": record.digest.hex()}, separators=(",", ":")).encode()


def _load(data: bytes) -> KeyRecord:
    fields = json.loads(data)
    digest = bytes.fromhex(fields.pop("sha256"))
    limits = fields.pop("limits")
    key = ApiKey(
        **{
            **fields,
            "key_class": KeyClass(fields["key_class"]),
            "scopes": frozenset(Scope(scope) for scope in fields["scopes"]),
            "limits": Limits(**limits) if limits is not None else None,
        }
    )
    return KeyRecord(key=key, digest=digest)
