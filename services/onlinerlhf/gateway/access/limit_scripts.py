"""The limits' scripts: all dimensions of a call in one atomic step, on Redis's own clock. See buckets.py for the sums.

    limit:<dimension>:<subject>          what was used, in units, as of then:
                                         `<microsecond> <requests> <tokens>[ <daily requests> <daily tokens>]`
    limit:<dimension>:<subject>:leases   sorted set: request id -> microsecond at which its lease ends

Both expire once a new one would say the same. The leases of the first dimension, the key, are also the done marker: a
request that has one is not charged again, and one that has none any more is not refunded again.

A dimension has three limits, or, where any dimension of the call has one of a day, five: days cost nothing where there
are none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from onlinerlhf.gateway.access.buckets import CONCURRENCY_WAIT_MICROS, DAY, MINUTE, Metered
from onlinerlhf.runtime.redis import Script

REDIS_CLOCK: Final = """
local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end
"""

_BUCKETS: Final = (
    f"""
local UNITS = {MINUTE.num_ticks}
local DAY_UNITS = {DAY.num_ticks}
local DAY_TICK = {DAY.tick_micros}
local CONCURRENCY_WAIT = {CONCURRENCY_WAIT_MICROS}
"""
    """
local NONE = -1
local SLACK = 1000

local function drained(used, ticks, limit)
  if limit == NONE then return 0 end
  return math.max(0, tonumber(used) - ticks * limit)
end

-- What was used, in units: requests and tokens, and where days count (limits[4]) daily requests and tokens.
local function read(bucket, limits, now)
  local value = redis.call('GET', bucket)
  if not value then return {0, 0, 0, 0} end
  local at, requests, tokens, day = string.match(value, '^(%d+) (%d+) (%d+)(.*)$')
  at = tonumber(at)
  local micros = math.max(0, now - at)
  local used = {drained(requests, micros, limits[1]), drained(tokens, micros, limits[2]), 0, 0, exists = true}
  if limits[4] and day ~= '' then
    local ticks = math.max(0, math.floor(now / DAY_TICK) - math.floor(at / DAY_TICK))
    requests, tokens = string.match(day, '^ (%d+) (%d+)$')
    used[3], used[4] = drained(requests, ticks, limits[4]), drained(tokens, ticks, limits[5])
  end
  return used
end

-- A bucket that has drained is a bucket that is not there.
local function write(bucket, limits, now, used)
  local value, micros = string.format('%.0f %.0f %.0f', now, used[1], used[2]), 0
  if limits[1] ~= NONE then micros = used[1] / limits[1] end
  if limits[2] ~= NONE then micros = math.max(micros, used[2] / limits[2]) end
  if limits[4] then
    value = string.format('%s %.0f %.0f', value, used[3], used[4])
    if limits[4] ~= NONE then micros = math.max(micros, DAY_TICK * used[3] / limits[4]) end
    if limits[5] ~= NONE then micros = math.max(micros, DAY_TICK * used[4] / limits[5]) end
  end
  redis.call('SET', bucket, value, 'PX', string.format('%.0f', math.ceil(micros / 1000) + SLACK))
end

-- Limits of dimension i of `width` each: requests and tokens a minute, concurrent, and requests and tokens a day.
local function limits_of(first, width, i)
  local at = first + width * (i - 1)
  local limits = {tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])}
  if width == 5 then limits[4], limits[5] = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]) end
  return limits
end
"""
)

_RESERVE: Final = """
-- KEYS bucket and leases of each dimension, the key's first. ARGV request, tokens, lease in microseconds (0: none, for
-- what is over when it is let in), then three or five limits a dimension (-1: none). Replies nothing where granted,
-- else {dimension from 1, kind, microseconds}.
local request, asked, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if lease > 0 and redis.call('ZSCORE', KEYS[2], request) then return {} end
local now = clock()
local now_text = string.format('%.0f', now)
local num, width = #KEYS / 2, (#ARGV - 3) / (#KEYS / 2)
local worst, all_limits, all_used = {0, '', 0}, {}, {}
local function refuse(i, kind, micros)
  if micros > worst[3] then worst = {i, kind, micros} end
end
-- Written so that no sum goes beyond the largest limit.
local function check(i, kind, used, number, limit)
  if limit == NONE then return end
  local over = used - (limit - number) * UNITS
  if over > 0 then refuse(i, kind, math.ceil(over / limit)) end
end
local function check_day(i, kind, used, number, limit)
  if limit == NONE then return end
  local over = used - (limit - number) * DAY_UNITS
  if over > 0 then refuse(i, kind, (math.floor(now / DAY_TICK) + math.ceil(over / limit)) * DAY_TICK - now) end
end
for i = 1, num do
  local limits = limits_of(4, width, i)
  local used = read(KEYS[2 * i - 1], limits, now)
  check(i, 'requests', used[1], 1, limits[1])
  check(i, 'tokens', used[2], asked, limits[2])
  if limits[4] then
    check_day(i, 'daily_requests', used[3], 1, limits[4])
    check_day(i, 'daily_tokens', used[4], asked, limits[5])
  end
  if lease > 0 and limits[3] ~= NONE and redis.call('ZCOUNT', KEYS[2 * i], '(' .. now_text, '+inf') >= limits[3] then
    refuse(i, 'concurrency', CONCURRENCY_WAIT)
  end
  all_limits[i], all_used[i] = limits, used
end
if worst[3] > 0 then return worst end
for i = 1, num do
  local limits, used = all_limits[i], all_used[i]
  if limits[1] ~= NONE then used[1] = used[1] + UNITS end
  if limits[2] ~= NONE then used[2] = used[2] + asked * UNITS end
  if limits[4] then
    if limits[4] ~= NONE then used[3] = used[3] + DAY_UNITS end
    if limits[5] ~= NONE then used[4] = used[4] + asked * DAY_UNITS end
  end
  if used[1] + used[2] + used[3] + used[4] > 0 then write(KEYS[2 * i - 1], limits, now, used) end
  if lease > 0 and (i == 1 or limits[3] ~= NONE) then
    redis.call('ZREMRANGEBYSCORE', KEYS[2 * i], '-inf', now_text)
    redis.call('ZADD', KEYS[2 * i], string.format('%.0f', now + lease), request)
    redis.call('PEXPIRE', KEYS[2 * i], string.format('%.0f', math.ceil(lease / 1000) + SLACK))
  end
end
return {}
"""

_SETTLE: Final = """
-- KEYS as above. ARGV request, tokens to give back (negative: to charge), then three or five limits a dimension.
-- Replies 0 where that was done before, or the lease has ended.
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then return 0 end
local num, width = #KEYS / 2, (#ARGV - 2) / (#KEYS / 2)
for i = 2, num do redis.call('ZREM', KEYS[2 * i], ARGV[1]) end
local refunded = tonumber(ARGV[2])
if refunded == 0 then return 1 end
local now = clock()
for i = 1, num do
  local limits = limits_of(3, width, i)
  if limits[2] ~= NONE or (limits[5] or NONE) ~= NONE then
    local used = read(KEYS[2 * i - 1], limits, now)
    if used.exists or refunded < 0 then
      if limits[2] ~= NONE then used[2] = math.max(0, used[2] - refunded * UNITS) end
      if (limits[5] or NONE) ~= NONE then used[4] = math.max(0, used[4] - refunded * DAY_UNITS) end
      write(KEYS[2 * i - 1], limits, now, used)
    end
  end
end
return 1
"""


@dataclass(frozen=True, slots=True)
class LimitScripts:
    """Reserve and settle."""

    reserve: Script
    settle: Script


def limit_scripts(clock: str = REDIS_CLOCK) -> LimitScripts:
    """With the Lua function `clock()`, microseconds."""
    return LimitScripts(reserve=Script(clock + _BUCKETS + _RESERVE), settle=Script(clock + _BUCKETS + _SETTLE))


def limit_arguments(dimensions: Sequence[Metered]) -> list[int]:
    """The limits as both scripts take them."""
    rows = [
        (each.limits.requests_per_minute, each.limits.tokens_per_minute, each.limits.max_concurrent)
        for each in dimensions
    ]
    days = [(each.limits.requests_per_day, each.limits.tokens_per_day) for each in dimensions]
    has_days = any(number is not None for day in days for number in day)
    numbers = [number for row, day in zip(rows, days, strict=True) for number in (row + day if has_days else row)]
    return [-1 if number is None else number for number in numbers]
