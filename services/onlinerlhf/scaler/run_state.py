"""The run as Redis has it, in one consistent look; and how fast samples leave, from several looks."""

import asyncio
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from onlinerlhf.core.errors import Unavailable
from onlinerlhf.core.samples import DropReason, Stage
from onlinerlhf.runtime.cordon import LUA_CORDON, cordon
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import LedgerCounts
from onlinerlhf.runtime.redis import Script, away_reason
from onlinerlhf.runtime.streams import RETURNED

T = TypeVar("T")

REDIS_SECONDS: Final = 3.0
RATE_SECONDS: Final = 600.0
"""What a rate is taken over: several steps of the learner, as samples leave a batch at a time."""
MIN_RATE_SECONDS: Final = 120.0
"""Less than this says nothing."""
OUTLAST_SECONDS: Final = 10.0
"""A cordon counts that holds for so long yet: until the turn that goes by it has renewed it."""

_LOOK: Final = Script(
    LUA_CORDON
    + """
-- KEYS [prompts], [rollouts], [scored], ledger counts, cordoned. ARGV group, ms that a cordon must last.
-- Replies three lengths, the age in ms of the oldest of [prompts] by this server's clock, the counts (field, number,
-- ...), who holds how many of [prompts] (consumer, number, ...) and who is cordoned. Payloads stay here.
local oldest = 0
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if first then
  oldest = math.max(0, now_ms() - tonumber(string.match(first[1], '^%d+')))
end
local held = {}
if redis.call('EXISTS', KEYS[1]) == 1 then
  local rows = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
  -- No group yet: nobody has read, and nothing is held.
  if rows.err and not string.find(rows.err, 'NOGROUP', 1, true) then return rows end
  for _, row in ipairs(rows) do
    local consumer = {}
    for i = 1, #row, 2 do consumer[row[i]] = row[i + 1] end
    held[#held + 1] = consumer['name']
    held[#held + 1] = consumer['pending']
  end
end
return {
  redis.call('XLEN', KEYS[1]), redis.call('XLEN', KEYS[2]), redis.call('XLEN', KEYS[3]),
  oldest, redis.call('HGETALL', KEYS[4]), held, redis.call('ZRANGEBYSCORE', KEYS[5], now_ms() + ARGV[2], '+inf'),
}
"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """One look."""

    backlogs: Mapping[Stage, int]
    oldest_seconds: float
    """Age of the oldest entry of [prompts], by Redis' own clock; 0: it is empty."""
    counts: LedgerCounts
    held: Mapping[str, int]
    """Consumer of [prompts] -> entries that it holds; those given back are nobody's."""
    cordoned: frozenset[str]
    """Consumers of [prompts] that get no more, for OUTLAST_SECONDS at least."""


async def look(redis: Redis, keys: RunKeys) -> RunState:
    """Raises Unavailable, also where Redis refuses: whoever decides by this keeps what it has."""
    streams = [keys.stream(stage) for stage in (Stage.PROMPTS, Stage.ROLLOUTS, Stage.SCORED)]
    asked = [*streams, keys.ledger_counts, keys.cordoned]
    asking = _LOOK.run(redis, asked, [keys.group, int(OUTLAST_SECONDS * 1000)])
    prompts, rollouts, scored, oldest_ms, counts, held, cordoned = await _within_seconds("the run's backlog", asking)
    return RunState(
        backlogs={Stage.PROMPTS: prompts, Stage.ROLLOUTS: rollouts, Stage.SCORED: scored},
        oldest_seconds=oldest_ms / 1000,
        counts=LedgerCounts.of({name: int(number) for name, number in _pairs(counts).items()}),
        held={name: int(number) for name, number in _pairs(held).items() if name != RETURNED and int(number) > 0},
        cordoned=frozenset(str(name, "utf-8", "replace") for name in cordoned),
    )


async def set_cordons(
    redis: Redis, keys: RunKeys, workers: Sequence[str], *, lift: Sequence[str], seconds: float
) -> None:
    """These workers get nothing new for so long; those to `lift` do again. Raises Unavailable."""
    await _within_seconds("cordons", cordon(redis, keys, workers, seconds=seconds, lift=lift))


class Rate:
    """How fast a counter grows."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int]] = deque()

    def add(self, now: float, count: int) -> float | None:
        """A second over the last RATE_SECONDS; None: not known yet."""
        if self._looks and count < self._looks[-1][1]:
            # Another run, or a Redis without the old one's data.
            self._looks.clear()
        self._looks.append((now, count))
        while self._looks[0][0] < now - RATE_SECONDS:
            self._looks.popleft()
        since, before = self._looks[0]
        return (count - before) / (now - since) if now - since >= MIN_RATE_SECONDS else None


def num_left_scored(counts: LedgerCounts) -> int:
    """Samples that the learner is done with: learned from, or dropped as stale."""
    return counts.trained + counts.dropped.get(DropReason.STALE, 0)


async def _within_seconds(what: str, call: Coroutine[Any, Any, T]) -> T:
    try:
        async with asyncio.timeout(REDIS_SECONDS):
            return await call
    except (RedisError, OSError, TimeoutError) as error:
        reason = away_reason(error) or f"Redis refuses ({type(error).__name__})"
        raise Unavailable(f"{what}: {reason}") from None


def _pairs(flat: list[bytes]) -> dict[str, bytes]:
    return {str(name, "utf-8", "replace"): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
