"""The pool's scripts. All keys are declared and share a hash slot; nothing is written before every check has passed."""

from typing import Final

from onlinerlhf.gateway.admission.dedup import DIGEST_BYTES
from onlinerlhf.runtime.ledger import LUA_TRANSITION
from onlinerlhf.runtime.redis import Script

LUA_DEDUP: Final = (
    "local DIGEST_BYTES = "
    + str(DIGEST_BYTES)
    + """
-- What `dedup` holds at the digest of a whole prompt is the prompt's id; at that of a part, '~' and the id's beginning.
local function dedup_part_of(sample) return '~' .. string.sub(sample, 1, 8) end

-- Forgets the digests of one prompt that are still its own.
local function dedup_forget(dedup, dedup_of, sample)
  local digests = redis.call('HGET', dedup_of, sample)
  if not digests then return end
  for i = 1, #digests, DIGEST_BYTES do
    local digest = string.sub(digests, i, i + DIGEST_BYTES - 1)
    local holder = redis.call('HGET', dedup, digest)
    if holder == sample or holder == dedup_part_of(sample) then redis.call('HDEL', dedup, digest) end
  end
  redis.call('HDEL', dedup_of, sample)
end
"""
)
"""Lua functions for scripts in which prompts leave."""

ADMIT: Final = Script(
    LUA_TRANSITION
    + LUA_DEDUP
    + """
-- Further KEYS: records of prompts that this one may displace; their ids are the last of ARGV. Where it has to displace
-- another one, nothing is written, and the reply is 'again' with those to declare.
local states, counts, owners, blocked, dedup, dedup_of, record, by_age, of_owner, pool, tenants, held_out = unpack(KEYS)
local sample, owner, shown, data, seconds, tenant, split, pool_bound, cap, score = unpack(ARGV, 1, 10)
local num_turns, packed = tonumber(ARGV[11]), ARGV[12]
local FIRST, MAX_RIVALS = 13, 16

-- Of the whole prompt; then turns and rungs, shortest first.
local digests, lengths = {}, {}
for i = 1, #packed, DIGEST_BYTES + 4 do
  digests[#digests + 1] = string.sub(packed, i, i + DIGEST_BYTES - 1)
  lengths[#lengths + 1] = struct.unpack('>I4', packed, i + DIGEST_BYTES)
end
local num_characters = lengths[1]
local declared = {}
for i = FIRST, #KEYS do declared[ARGV[i]] = KEYS[i] end

-- Neither fed nor gone; a held-out prompt has no state.
local function waits(prompt)
  local state = redis.call('HGET', states, prompt)
  return not state or state == 'pool'
end

local function is_of(holder, prompt) return prompt and (holder == prompt or holder == dedup_part_of(prompt)) end

if redis.call('HEXISTS', states, sample) == 1 then return {'admitted'} end
if redis.call('HEXISTS', held_out, sample) == 1 then return {'held_out'} end
-- One clock decides whether consent is older than its withdrawal.
local now = tonumber(redis.call('TIME')[1])
local proof = owner .. '|' .. string.format('%d', math.min(tonumber(shown), now))
local word = ledger_proof_blocked(blocked, proof)
if word then return {word} end
if tonumber(redis.call('HGET', counts, 'pool') or '0') >= tonumber(pool_bound) then return {'pool_full'} end

local found = redis.call('HMGET', dedup, unpack(digests))
if found[1] then return {'duplicate'} end
local grown = nil
for i = num_turns + 1, 2, -1 do
  local holder = found[i]
  -- An earlier prompt of this owner ended with this turn.
  if holder and redis.call('HEXISTS', dedup_of, holder) == 1 then
    if waits(holder) then grown = holder elseif 2 * lengths[i] >= num_characters then return {'duplicate'} end
    break
  end
end
for i = #digests, num_turns + 2, -1 do
  if 2 * lengths[i] < num_characters then break end
  if found[i] and not is_of(found[i], grown) then return {'duplicate'} end
end

local displaced = grown
local rivals = {grown}
if not grown and redis.call('ZCARD', of_owner) >= tonumber(cap) then
  for _, rival in ipairs(redis.call('ZREVRANGEBYSCORE', of_owner, '+inf', '(' .. score)) do
    if #rivals < MAX_RIVALS and waits(rival) then rivals[#rivals + 1] = rival end
  end
  displaced = rivals[1]
  if not displaced then return {'user_cap'} end
end
if displaced and not declared[displaced] then return {'again', unpack(rivals)} end

if split == 'train' then
  ledger_admit(states, counts, owners, sample, 'pool', proof)
else
  ledger_check_proof(proof)
  redis.call('HSET', held_out, sample, split)
end
if displaced then
  if ledger_move(states, counts, displaced, 'pool', 'dropped:displaced') then
    redis.call('LREM', pool, -1, displaced)
  end
  redis.call('DEL', declared[displaced])
  redis.call('HDEL', held_out, displaced)
  redis.call('ZREM', by_age, displaced)
  redis.call('ZREM', of_owner, displaced)
  if not grown then dedup_forget(dedup, dedup_of, displaced) end
  redis.call('HDEL', dedup_of, displaced)
end
local entries = {digests[1], sample}
for i = 2, #digests do
  if not found[i] or is_of(found[i], displaced) then
    entries[#entries + 1] = digests[i]
    entries[#entries + 1] = dedup_part_of(sample)
  end
end
redis.call('HSET', dedup, unpack(entries))
redis.call('HSET', dedup_of, sample, table.concat(digests))
redis.call('SET', record, data, 'EX', seconds)
redis.call('ZADD', by_age, now, sample)
redis.call('ZADD', of_owner, score, sample)
if split ~= 'train' then return {'held_out'} end
redis.call('RPUSH', pool, sample)
if not redis.call('ZSCORE', tenants, tenant) then
  -- Whoever comes, or comes back, starts level with the least served: being idle earns nothing.
  local least = redis.call('ZRANGE', tenants, 0, 0, 'WITHSCORES')
  redis.call('ZADD', tenants, least[2] or 0, tenant)
end
return {'admitted'}
"""
)

# Backlog of [prompts], what waits in the pool, the head of the list of further epochs, and the tenants served least.
LOOK: Final = Script(
    """
local stream, counts, pool_reuse, tenants = unpack(KEYS)
return {
  redis.call('XLEN', stream),
  tonumber(redis.call('HGET', counts, 'pool') or '0'),
  redis.call('LLEN', pool_reuse),
  redis.call('LRANGE', pool_reuse, 0, ARGV[1] - 1),
  redis.call('ZRANGE', tenants, 0, ARGV[2], 'WITHSCORES'),
}
"""
)

# The heads of the lists in KEYS.
PEEK: Final = Script(
    """
local heads = {}
for i = 1, #KEYS do heads[i] = redis.call('LRANGE', KEYS[i], 0, ARGV[1] - 1) end
return heads
"""
)

_FEED: Final = (
    LUA_TRANSITION
    + """
local stream, states, counts, owners, blocked, pool_reuse = unpack(KEYS, 1, 6)
local bound, max_epochs = tonumber(ARGV[1]), tonumber(ARGV[2])

local function has_room() return redis.call('XLEN', stream) < bound end

local function wait_for_epoch(prompt, epoch)
  if epoch < max_epochs then redis.call('RPUSH', pool_reuse, prompt .. '.' .. epoch) end
end
"""
)

# ARGV[3..]: pairs of tenant and sample id, in the order of feeding; KEYS[8..]: of each the tenant's list and the
# sample's record. No sample id: the list was empty. Replies how many were moved and how many passed over; stops where a
# list is not what it was.
FEED_NEW: Final = Script(
    _FEED
    + """
local tenants = KEYS[7]
local moved, skipped = 0, 0

local function feed(tenant, sample, record)
  if redis.call('HGET', states, sample) ~= 'pool' then return false end
  local word = ledger_blocked(blocked, owners, sample)
  local data = redis.call('GET', record)
  if word or not data then
    ledger_move(states, counts, sample, 'pool', 'dropped:' .. (word or 'expired'))
    return false
  end
  ledger_move(states, counts, sample, 'pool', 'prompts')
  redis.call('XADD', stream, '*', 'id', sample, 'data', data)
  redis.call('ZINCRBY', tenants, 1, tenant)
  wait_for_epoch(sample, 1)
  return true
end

for i = 3, #ARGV, 2 do
  local tenant, sample, list, record = ARGV[i], ARGV[i + 1], KEYS[i + 5], KEYS[i + 6]
  local head = redis.call('LINDEX', list, 0)
  if sample == '' then
    if head then break end
    redis.call('ZREM', tenants, tenant)
  else
    if not has_room() or head ~= sample then break end
    redis.call('LPOP', list)
    if feed(tenant, sample, record) then moved = moved + 1 else skipped = skipped + 1 end
  end
end
return {moved, skipped}
"""
)

# ARGV[3..]: pairs of `<prompt_id>.<epoch>` and that sample's data (empty: the record was gone).
FEED_AGAIN: Final = Script(
    _FEED
    + """
local moved, skipped = 0, 0
for i = 3, #ARGV, 2 do
  local sample, data = ARGV[i], ARGV[i + 1]
  if not has_room() or tonumber(redis.call('HGET', counts, 'pool') or '0') > 0 then break end
  if redis.call('LINDEX', pool_reuse, 0) ~= sample then break end
  redis.call('LPOP', pool_reuse)
  local prompt, epoch = string.match(sample, '^(.+)%.(%d+)$')
  local may_go = tonumber(epoch) < max_epochs and data ~= '' and not ledger_blocked(blocked, owners, prompt)
  if may_go and ledger_admit(states, counts, owners, sample, 'prompts', redis.call('HGET', owners, prompt)) then
    redis.call('XADD', stream, '*', 'id', sample, 'data', data)
    wait_for_epoch(prompt, tonumber(epoch) + 1)
    moved = moved + 1
  else
    skipped = skipped + 1
  end
end
return {moved, skipped}
"""
)
