"""Who is who without names: every key and record in Redis knows users and organisations by keyed digests."""

import secrets
from dataclasses import dataclass

from redis.asyncio import Redis

from onlinerlhf.gateway.admission.normalise import keyed_digest
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import command


@dataclass(frozen=True, slots=True)
class Digests:
    """Digests of one run: 32 hexadecimal digits each, by the run's key."""

    key: bytes

    def owner(self, organisation: str, user_id: str) -> str:
        """A user of an organisation; user ids mean nothing beyond it. Empty: of keys without one."""
        return self.of("owner", organisation.encode(), user_id.encode())

    def tenant(self, organisation: str, owner: str) -> str:
        """Whom training mass is shared between: the organisation, or the user where there is none."""
        return self.of("tenant", organisation.encode()) if organisation else owner

    def of(self, kind: str, *parts: bytes) -> str:
        """Of values of one kind, so that equal values of two kinds have nothing in common."""
        value = kind.encode()
        for part in parts:
            value += b"\x00%d:%b" % (len(part), part)
        return keyed_digest(value, self.key)


class HashKey:
    """The key of a run's digests: a setting, or drawn once by the first gateway that asks and kept in Redis."""

    def __init__(self, redis: Redis, keys: RunKeys, setting: bytes | None = None) -> None:
        self._redis = redis
        self._name = keys.key("gateway", "hash_key")
        self._digests = Digests(setting) if setting is not None else None

    async def digests(self) -> Digests:
        """Asks Redis once. Raises RedisError or OSError."""
        if self._digests is None:
            await command(self._redis, "SET", self._name, secrets.token_bytes(32), "NX")
            self._digests = Digests(bytes(await command(self._redis, "GET", self._name)))
        return self._digests
