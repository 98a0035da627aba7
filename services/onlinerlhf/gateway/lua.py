"""The pool's scripts. All keys are declared and share a hash slot; nothing is written before every check has passed."""

from typing import Final

from onlinerlhf.runtime.ledger import LUA_TRANSITION
from onlinerlhf.runtime.redis import Script

ADMIT: Final = Script(
    LUA_TRANSITION
    + """
local idempotency, user, dedup, record, pool, states, counts = unpack(KEYS)
local body, sample, text, data, num_tokens, user_cap, pool_bound, seconds = unpack(ARGV)

local earlier = redis.call('HMGET', idempotency, 'body', 'sample', 'num_tokens')
if earlier[1] then
  if earlier[1] ~= body then return {'idempotency_conflict', '', 0} end
  return {'replayed', earlier[2], earlier[3]}
end
if redis.call('SISMEMBER', dedup, text) == 1 then return {'duplicate', '', 0} end
if tonumber(redis.call('GET', user) or '0') >= tonumber(user_cap) then return {'user_cap', '', 0} end
if redis.call('LLEN', pool) >= tonumber(pool_bound) then return {'pool_full', '', 0} end

redis.call('HSET', idempotency, 'body', body, 'sample', sample, 'num_tokens', num_tokens)
redis.call('EXPIRE', idempotency, seconds)
redis.call('SADD', dedup, text)
redis.call('INCR', user)
redis.call('SET', record, data)
ledger_admit(states, counts, sample, 'pool')
redis.call('RPUSH', pool, sample)
return {'admitted', sample, num_tokens}
"""
)

# Backlog of [prompts], sizes of the pool, and what is at the heads of its two lists.
LOOK: Final = Script(
    """
local stream, pool_new, pool_reuse = unpack(KEYS)
return {
  redis.call('XLEN', stream),
  redis.call('LLEN', pool_new),
  redis.call('LLEN', pool_reuse),
  redis.call('LRANGE', pool_new, 0, ARGV[1]),
  redis.call('LRANGE', pool_reuse, 0, ARGV[1]),
}
"""
)

_FEED: Final = (
    LUA_TRANSITION
    + """
local pool_new, pool_reuse, stream, states, counts = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local bound, max_epochs = tonumber(ARGV[1]), tonumber(ARGV[2])

local function has_room() return redis.call('XLEN', stream) < bound end

-- After a pass: wait for the next one, or forget the prompt.
local function keep_or_forget(record, prompt, next_epoch)
  if next_epoch < max_epochs then
    redis.call('RPUSH', pool_reuse, prompt .. '.' .. next_epoch)
  else
    redis.call('DEL', record)
  end
end
"""
)

# ARGV[3..]: sample ids as they were at the head of the list; KEYS[6..]: their records. Stops where the head has moved.
FEED_NEW: Final = Script(
    _FEED
    + """
local moved = 0
for i = 3, #ARGV do
  local sample, record = ARGV[i], KEYS[i + 3]
  if not has_room() or redis.call('LINDEX', pool_new, 0) ~= sample then break end
  redis.call('LPOP', pool_new)
  local data = redis.call('GET', record)
  if not data then
    ledger_move(states, counts, sample, 'pool', 'dropped:malformed')
  elseif ledger_move(states, counts, sample, 'pool', 'prompts') then
    redis.call('XADD', stream, '*', 'id', sample, 'data', data)
    keep_or_forget(record, sample, 1)
    moved = moved + 1
  end
end
return moved
"""
)

# ARGV[3..]: pairs of `<prompt_id>.<epoch>` and that sample's data (empty: the record was gone); KEYS[6..]: the records.
FEED_AGAIN: Final = Script(
    _FEED
    + """
local moved = 0
for i = 3, #ARGV, 2 do
  local sample, data, record = ARGV[i], ARGV[i + 1], KEYS[6 + (i - 3) / 2]
  if not has_room() or redis.call('LLEN', pool_new) > 0 then break end
  if redis.call('LINDEX', pool_reuse, 0) ~= sample then break end
  redis.call('LPOP', pool_reuse)
  local prompt, epoch = string.match(sample, '^(.+)%.(%d+)$')
  if tonumber(epoch) >= max_epochs then
    redis.call('DEL', record)
  elseif data ~= '' and ledger_admit(states, counts, sample, 'prompts') then
    redis.call('XADD', stream, '*', 'id', sample, 'data', data)
    keep_or_forget(record, prompt, tonumber(epoch) + 1)
    moved = moved + 1
  end
end
return moved
"""
)
