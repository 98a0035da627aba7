"""What is used of the limits and what is left, as the gateways of a run would see it now."""

from dataclasses import dataclass

from redis.asyncio import Redis

from onlinerlhf.core.errors import NotFound
from onlinerlhf.gateway.access.buckets import DAY, MINUTE, Bucket, Dimension, Metered, Window
from onlinerlhf.gateway.access.callers import ApiKey, Limits
from onlinerlhf.gateway.access.identity import Digests, HashKey
from onlinerlhf.gateway.access.limit_defaults import LimitDefaults, defaults_key, limit_keys, load_defaults
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import command


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """Of one key, user or organisation."""

    dimension: Dimension
    limits: Limits
    requests_used: int
    """Of the last minute's, what has not flowed back yet; rounded up. As the next one."""
    tokens_used: int
    num_concurrent: int
    daily_requests_used: int
    """Of the last day's, as the next one."""
    daily_tokens_used: int

    @property
    def left(self) -> Limits:
        """What would be granted now. None: no limit."""
        return Limits(
            requests_per_minute=_left(self.limits.requests_per_minute, self.requests_used),
            tokens_per_minute=_left(self.limits.tokens_per_minute, self.tokens_used),
            max_concurrent=_left(self.limits.max_concurrent, self.num_concurrent),
            requests_per_day=_left(self.limits.requests_per_day, self.daily_requests_used),
            tokens_per_day=_left(self.limits.tokens_per_day, self.daily_tokens_used),
        )


class Quotas:
    """Reads, and changes nothing. Methods raise RedisError or OSError while Redis is away."""

    def __init__(self, redis: Redis, keys: RunKeys, *, hash_key: bytes | None = None) -> None:
        """`hash_key`: the gateways' setting, where they have one."""
        self._redis = redis
        self._keys = keys
        self._hash_key = hash_key

    async def defaults(self) -> LimitDefaults:
        """What the run's gateways go by."""
        text = await command(self._redis, "GET", defaults_key(self._keys))
        if text is None:
            raise NotFound(f"no gateway of run {self._keys.run} has said yet what limits it goes by; is one up?")
        return load_defaults(text)

    async def of_key(self, key: ApiKey) -> Quota:
        """A key's, whoever uses it."""
        limits = (await self.defaults()).of_key(key.key_class, key.limits)
        return await self._of(Metered(dimension=Dimension.KEY, subject=key.key_id, limits=limits))

    async def of_user(self, organisation: str, user_id: str) -> Quota:
        """A user's of an organisation, or of keys without one."""
        owner = (await self._digests()).owner(organisation, user_id)
        limits = (await self.defaults()).user
        return await self._of(Metered(dimension=Dimension.USER, subject=owner, limits=limits))

    async def of_organisation(self, organisation: str) -> Quota:
        """An organisation's, over all its keys and users."""
        tenant = (await self._digests()).tenant(organisation, "")
        limits = (await self.defaults()).organisation
        return await self._of(Metered(dimension=Dimension.ORGANISATION, subject=tenant, limits=limits))

    async def _digests(self) -> Digests:
        # A look must not draw a hash key.
        hash_key = HashKey(self._redis, self._keys, self._hash_key)
        if self._hash_key is None and not await command(self._redis, "EXISTS", self._keys.key("gateway", "hash_key")):
            raise NotFound(f"no gateway of run {self._keys.run} has served anybody yet")
        return await hash_key.digests()

    async def _of(self, metered: Metered) -> Quota:
        seconds, micros = await command(self._redis, "TIME")
        now = int(seconds) * 1_000_000 + int(micros)
        bucket_key, leases_key = limit_keys(self._keys, metered.dimension, metered.subject)
        text = await command(self._redis, "GET", bucket_key)
        used = (load_bucket(text) if text is not None else Bucket(at_micros=now)).at(metered.limits, now)
        return Quota(
            dimension=metered.dimension,
            limits=metered.limits,
            requests_used=_rounded_up(MINUTE, used.requests),
            tokens_used=_rounded_up(MINUTE, used.tokens),
            daily_requests_used=_rounded_up(DAY, used.daily_requests),
            daily_tokens_used=_rounded_up(DAY, used.daily_tokens),
            num_concurrent=int(await command(self._redis, "ZCOUNT", leases_key, f"({now}", "+inf")),
        )


def load_bucket(text: bytes) -> Bucket:
    """As the scripts of limit_scripts.py write it: without a day's numbers where no day is limited."""
    at, requests, tokens, daily_requests, daily_tokens = (int(part) for part in [*text.split(), b"0", b"0"][:5])
    return Bucket(
        at_micros=at, requests=requests, tokens=tokens, daily_requests=daily_requests, daily_tokens=daily_tokens
    )


def _rounded_up(window: Window, units: int) -> int:
    return -(-units // window.num_ticks)


def _left(limit: int | None, used: int) -> int | None:
    return None if limit is None else max(0, limit - used)
