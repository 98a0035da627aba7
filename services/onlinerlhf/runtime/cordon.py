"""A cordon: whoever sizes a stage tells some of its workers to take no new work, so that they get empty.

It is a promise for a time, by Redis' own clock: renewed while it is meant, and gone by itself where nobody renews it.
So a scaler that died leaves no worker aside for long, and a worker that cannot ask Redis comes back by itself.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Script, away_reason

ASK_SECONDS: Final = 1.0
"""News of a cordon are no older than this, while Redis answers."""

EMPTYING: Final = "the scaler empties this worker: fewer are wanted"
"""What a cordoned worker gives as the reason for being not ready. The scaler goes by it."""

LUA_CORDON: Final = """
local function now_ms()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

-- For how many ms the worker is cordoned yet; 0: it is not.
local function cordoned_ms(cordoned, worker)
  local lapses = redis.call('ZSCORE', cordoned, worker)
  return lapses and math.max(0, tonumber(lapses) - now_ms()) or 0
end
"""
"""Lua functions, for scripts that have RunKeys.cordoned among their keys."""

_CORDON: Final = Script(
    LUA_CORDON
    + """
-- KEYS cordoned. ARGV for how many ms, how many workers, those workers, then those that are free again. Of others the
-- cordon goes on until it lapses: they may be on their way out.
for i = 3 + ARGV[2], #ARGV do redis.call('ZREM', KEYS[1], ARGV[i]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms())
if ARGV[2] == '0' then return 0 end
for i = 3, 2 + ARGV[2] do redis.call('ZADD', KEYS[1], now_ms() + ARGV[1], ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return tonumber(ARGV[2])
"""
)

_ASK: Final = Script(
    LUA_CORDON
    + """
-- KEYS cordoned. ARGV worker.
return cordoned_ms(KEYS[1], ARGV[1])
"""
)


async def cordon(
    redis: Redis, keys: RunKeys, workers: Sequence[str], *, seconds: float, lift: Sequence[str] = ()
) -> None:
    """These workers of the run for so long, and not any more those to `lift`. Raises RedisError or OSError."""
    await _CORDON.run(redis, [keys.cordoned], [int(seconds * 1000), len(workers), *workers, *lift])


class Cordon:
    """What one worker knows of its own cordon."""

    def __init__(self, redis: Redis, keys: RunKeys, *, name: str) -> None:
        self._redis = redis
        self._keys = keys
        self._name = name
        self._lapses = 0.0
        self._ask_at = 0.0

    @property
    def is_on(self) -> bool:
        """As last heard. Never longer than was promised then."""
        return asyncio.get_running_loop().time() < self._lapses

    def hear(self, left_ms: int) -> None:
        """What a script replied."""
        now = asyncio.get_running_loop().time()
        self._lapses, self._ask_at = now + left_ms / 1000, now + ASK_SECONDS

    async def look(self) -> bool:
        """Whether it is on. Asks Redis where nothing was heard lately; one that is away changes nothing."""
        now = asyncio.get_running_loop().time()
        if now >= self._ask_at:
            self._ask_at = now + ASK_SECONDS
            try:
                self.hear(await _ASK.run(self._redis, [self._keys.cordoned], [self._name]))
            except (RedisError, OSError) as error:
                # Whoever reads or renews says so.
                if away_reason(error) is None:
                    raise
        return self.is_on
