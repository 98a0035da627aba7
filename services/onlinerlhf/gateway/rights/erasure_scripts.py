"""Scripts of erasure and withdrawal beside those of the streams. Each looks at some hundred entries at most, frees or
moves what is the owner's, and replies where to go on; so each may be repeated, and none holds Redis up.
"""

from collections.abc import Iterable
from typing import Final

from onlinerlhf.gateway.admission.lua import LUA_DEDUP
from onlinerlhf.gateway.admission.pool import dedup_of, held_out
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import LUA_TRANSITION
from onlinerlhf.runtime.redis import Script

ERASED: Final = Script("""
-- KEYS blocked, time of the tombstone. ARGV owner. Replies the second and microsecond of the first tombstone.
redis.call('HSET', KEYS[1], ARGV[1], 'erased')
local now = redis.call('TIME')
redis.call('HSETNX', KEYS[2], 'second', now[1])
redis.call('HSETNX', KEYS[2], 'microsecond', now[2])
return redis.call('HMGET', KEYS[2], 'second', 'microsecond')
""")

WITHDRAWN: Final = Script("""
-- KEYS blocked. ARGV owner. Consent shown up to this second does not count. An erased owner stays erased.
if redis.call('HGET', KEYS[1], ARGV[1]) == 'erased' then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], 'withdrawn:' .. redis.call('TIME')[1])
return 1
""")

GATHER: Final = Script("""
-- KEYS owners, ids. ARGV owner, cursor, page, seconds to keep. Notes which prompts are the owner's. Replies the cursor.
local reply = redis.call('HSCAN', KEYS[1], ARGV[2], 'COUNT', ARGV[3])
for i = 1, #reply[2], 2 do
  if string.sub(reply[2][i + 1], 1, #ARGV[1]) == ARGV[1] then
    redis.call('SADD', KEYS[2], string.match(reply[2][i], '^[^.]*'))
    redis.call('EXPIRE', KEYS[2], ARGV[4])
  end
end
return reply[1]
""")

SWEEP_LIST: Final = Script(
    LUA_TRANSITION
    + """
-- KEYS list of samples in the pool, states, counts, owners, blocked. ARGV owner, offset from the tail, page.
-- From the tail, since others take from the head: so none is passed over.
-- Replies the next offset (-1: that was all), the samples removed, how many of them were dropped, and why.
local list, states, counts, owners, blocked = unpack(KEYS)
local owner, offset, page = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local rows = redis.call('LRANGE', list, -offset - page, -offset - 1)
local removed, num_dropped, why = {}, 0, ''
for i = #rows, 1, -1 do
  local prompt = string.match(rows[i], '^[^.]*')
  local whose = redis.call('HGET', owners, prompt)
  local reason = whose and string.sub(whose, 1, #owner) == owner and ledger_blocked(blocked, owners, prompt)
  if reason then
    redis.call('LREM', list, -1, rows[i])
    removed[#removed + 1], why = rows[i], reason
    if ledger_move(states, counts, rows[i], 'pool', 'dropped:' .. reason) then num_dropped = num_dropped + 1 end
  end
end
return {#rows < page and -1 or offset + #rows - #removed, removed, num_dropped, why}
"""
)

FORGET_PROMPTS: Final = Script(
    LUA_DEDUP
    + """
-- KEYS dedup, the owner's dedup_of, held_out, prompts_by_age, prompts_of, then records. ARGV their prompts.
-- Replies how many there were of {digests, records}.
local dedup, dedup_of, held_out, by_age, of_owner = unpack(KEYS, 1, 5)
local digests, records = redis.call('HLEN', dedup), 0
for i = 1, #ARGV do
  dedup_forget(dedup, dedup_of, ARGV[i])
  redis.call('HDEL', held_out, ARGV[i])
  redis.call('ZREM', by_age, ARGV[i])
  redis.call('ZREM', of_owner, ARGV[i])
  records = records + redis.call('UNLINK', KEYS[5 + i])
end
return {digests - redis.call('HLEN', dedup), records}
"""
)


def forget_prompts_keys(keys: RunKeys, owner: str, prompts: Iterable[str]) -> list[str]:
    """Of FORGET_PROMPTS."""
    return [
        keys.dedup,
        dedup_of(keys, owner),
        held_out(keys),
        keys.prompts_by_age,
        keys.prompts_of(owner),
        *map(keys.prompt, prompts),
    ]


FORGET: Final = Script(
    LUA_TRANSITION
    + """
-- KEYS owners, states, counts, versions. ARGV owner, cursor, page.
-- A sample's state stays, since the ledger must balance, but not whose it was; first its version is noted.
-- Replies the cursor, samples forgotten, and of them dropped here.
local owners, states, counts, versions = unpack(KEYS)
local owner, num_forgotten, num_dropped = ARGV[1], 0, 0
local is_pending = {pool = true, prompts = true, rollouts = true, scored = true}
local reply = redis.call('HSCAN', owners, ARGV[2], 'COUNT', ARGV[3])
for i = 1, #reply[2], 2 do
  local sample = reply[2][i]
  if string.sub(reply[2][i + 1], 1, #owner) == owner then
    local state = redis.call('HGET', states, sample)
    local version = state and string.match(state, '^trained:(%d+)$')
    if version then redis.call('SADD', versions, version) end
    if is_pending[state] and ledger_move(states, counts, sample, state, 'dropped:erased') then
      num_dropped = num_dropped + 1
    end
    redis.call('HDEL', owners, sample)
    num_forgotten = num_forgotten + 1
  end
end
return {reply[1], num_forgotten, num_dropped}
"""
)

LOOK_THROUGH: Final = Script("""
-- KEYS ids, keys to look through.
-- ARGV owner, whether to remove ('1'), group, page, cursor ('': from the start), page of a stream.
-- Whatever names the owner or one of the ids goes: a key whose name does it, a string, a hash with the field `owner`;
-- of other hashes the field, of sets and lists the member, of streams the entry.
-- Replies {position of a key, found in it, cursor to go on from}... of keys with something or with more to look at.
local ids, owner, remove, group, page = KEYS[1], ARGV[1], ARGV[2] == '1', ARGV[3], tonumber(ARGV[4])
local has_ids = redis.call('EXISTS', ids) == 1
-- Ids are looked for in what is short; texts and payloads name their owner.
local SHORT = 200

local function is_theirs(text)
  if string.find(text, owner, 1, true) then return true end
  if not has_ids or #text > SHORT then return false end
  for word in string.gmatch(text, '[%w_-]+') do
    if redis.call('SISMEMBER', ids, word) == 1 then return true end
  end
  return false
end

local function whole(key)
  if remove then redis.call('UNLINK', key) end
  return 1, '0'
end

local look = {}

function look.string(key)
  if is_theirs(redis.call('GET', key)) then return whole(key) end
  return 0, '0'
end

function look.hash(key, cursor)
  local reply, num = redis.call('HSCAN', key, cursor, 'COUNT', page), 0
  for i = 1, #reply[2], 2 do
    if reply[2][i] == 'owner' and reply[2][i + 1] == owner then return whole(key) end
  end
  for i = 1, #reply[2], 2 do
    if is_theirs(reply[2][i]) or is_theirs(reply[2][i + 1]) then
      num = num + 1
      if remove then redis.call('HDEL', key, reply[2][i]) end
    end
  end
  return num, reply[1]
end

local function members(reply, step, key, drop)
  local num = 0
  for i = 1, #reply[2], step do
    if is_theirs(reply[2][i]) then
      num = num + 1
      if remove then redis.call(drop, key, reply[2][i]) end
    end
  end
  return num, reply[1]
end

function look.set(key, cursor) return members(redis.call('SSCAN', key, cursor, 'COUNT', page), 1, key, 'SREM') end

function look.zset(key, cursor) return members(redis.call('ZSCAN', key, cursor, 'COUNT', page), 2, key, 'ZREM') end

function look.list(key, cursor)
  local offset, num = tonumber(cursor), 0
  local rows = redis.call('LRANGE', key, -offset - page, -offset - 1)
  for i = #rows, 1, -1 do
    if is_theirs(rows[i]) then
      num = num + 1
      if remove then redis.call('LREM', key, -1, rows[i]) end
    end
  end
  if #rows < page then return num, '0' end
  return num, tostring(offset + #rows - (remove and num or 0))
end

function look.stream(key, cursor)
  local rows, num = redis.call('XRANGE', key, cursor == '0' and '-' or cursor, '+', 'COUNT', ARGV[6]), 0
  for _, row in ipairs(rows) do
    for i = 2, #row[2], 2 do
      if is_theirs(row[2][i]) or is_theirs(row[2][i - 1]) then
        num = num + 1
        if remove then
          redis.call('XACK', key, group, row[1])
          redis.call('XDEL', key, row[1])
        end
        break
      end
    end
  end
  return num, #rows == tonumber(ARGV[6]) and '(' .. rows[#rows][1] or '0'
end

local found = {}
for i = 2, #KEYS do
  local kind, num, cursor = redis.call('TYPE', KEYS[i]).ok, 0, '0'
  if kind ~= 'none' then
    if ARGV[5] == '' and is_theirs(KEYS[i]) then
      num, cursor = whole(KEYS[i])
    else
      num, cursor = look[kind](KEYS[i], ARGV[5] == '' and '0' or ARGV[5])
    end
  end
  if num > 0 or cursor ~= '0' then found[#found + 1] = {i - 2, num, cursor} end
end
return found
""")
