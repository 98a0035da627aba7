"""The stream scripts. Every state change is one of them: atomic, safe to repeat, all keys declared, Redis 6.2 or newer.

They free first (XACK, XDEL, XCLAIM) and write then: at maxmemory Redis refuses a script whose first write could use
memory, and nothing would drain.
"""

from typing import Final

from onlinerlhf.runtime.cordon import LUA_CORDON
from onlinerlhf.runtime.ledger import LUA_TRANSITION
from onlinerlhf.runtime.redis import Script

DEAD_LETTERS_KEPT: Final = 10_000
"""About as many; older ones go. Never applied to a work stream."""

FORGET_LEASES: Final = 20
"""A consumer that holds nothing is forgotten when it gave no sign for so many leases."""

LUA_SETTLE: Final = (
    LUA_TRANSITION
    + """
-- Take an entry off its stream, and what was kept about its sample's tries.
local function remove(stream, group, entry, attempts, errors, sample)
  redis.call('XACK', stream, group, entry)
  redis.call('XDEL', stream, entry)
  redis.call('HDEL', attempts, sample)
  redis.call('HDEL', errors, sample)
end

local function dead_letter(dead, sample, stage, tries, error)
  redis.call('XADD', dead, 'MAXLEN', '~', """
    + str(DEAD_LETTERS_KEPT)
    + """, '*', 'sample', sample, 'stage', stage, 'attempts', tries, 'error', error)
end
"""
)
"""Lua functions that a script starts with where it takes entries off a stream."""

ENSURE_GROUP: Final = Script("""
-- KEYS stream. ARGV group.
if redis.call('EXISTS', KEYS[1]) == 1 then
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    if info[2] == ARGV[1] then return 0 end
  end
end
-- At 0, or entries added before the group were never read.
redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
return 1
""")

TAKE: Final = Script(
    LUA_SETTLE
    + LUA_CORDON
    + """
-- KEYS stream, dead, states, counts, attempts, errors, blocked, owners, cordoned.
-- ARGV group, me, returned, stage, want, lease in ms, delivery limit (0: none), recover (0: no, 1: counting the
--      attempt, 2: not), whether to look for entries of the dead, then the entries to leave alone.
-- Replies {{entry, sample, data, attempt}...}, {{sample, attempts, error}...}, entries handled, own entries may be
--      left, the group's last entry, reasons of samples that may not be used any more, for how many ms this consumer
--      is cordoned: then it gets only what was its own before.
local stream, dead, states, counts, attempts, errors = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local blocked, owners = KEYS[7], KEYS[8]
local group, me, returned, stage = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local want, lease, limit, recover, scan = tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9]
local FIRST = 10
local leave, taken, buried, refused, handled = {}, {}, {}, {}, 0
local cordoned = cordoned_ms(KEYS[9], me)
for i = FIRST, #ARGV do leave[ARGV[i]] = true end
local page = want + #ARGV - FIRST + 1

local function bury(entry, sample, error, state)
  local tries = redis.call('HGET', attempts, sample) or '0'
  remove(stream, group, entry, attempts, errors, sample)
  ledger_move(states, counts, sample, stage, state)
  dead_letter(dead, sample, stage, tries, error)
  buried[#buried + 1] = {sample, tries, error}
end

local function begin(entry, fields, counting)
  handled = handled + 1
  local sample, data = '', nil
  for i = 1, #fields, 2 do
    if fields[i] == 'id' then sample = fields[i + 1] elseif fields[i] == 'data' then data = fields[i + 1] end
  end
  local state = redis.call('HGET', states, sample)
  if sample == '' then return bury(entry, sample, 'missing_id', '') end
  if not state then return bury(entry, sample, 'unknown_sample', '') end
  if state ~= stage then return remove(stream, group, entry, attempts, errors, sample) end
  local reason = ledger_blocked(blocked, owners, sample)
  if reason then
    remove(stream, group, entry, attempts, errors, sample)
    ledger_move(states, counts, sample, stage, 'dropped:' .. reason)
    refused[#refused + 1] = reason
    return
  end
  if not data then return bury(entry, sample, 'missing_data', 'dropped:malformed') end
  local tries = tonumber(redis.call('HGET', attempts, sample) or '0')
  if limit > 0 and counting and tries >= limit then
    -- No error was reported: whoever had it died or hung with it.
    return bury(entry, sample, redis.call('HGET', errors, sample) or 'lease_expired', 'dropped:dead_letter')
  end
  if counting or tries == 0 then tries = redis.call('HINCRBY', attempts, sample, 1) end
  taken[#taken + 1] = {entry, sample, data, tries}
end

-- Claims without waiting for idleness: that was checked by whoever listed the rows. True where all were looked at.
local function claim(rows, counting)
  for _, row in ipairs(rows) do
    local entry = row[1]
    if not leave[entry] then
      if #taken >= want then return false end
      leave[entry] = true
      redis.call('XCLAIM', stream, group, me, 0, entry, 'JUSTID')
      local found = redis.call('XRANGE', stream, entry, entry)
      if found[1] then
        begin(entry, found[1][2], counting)
      else
        redis.call('XACK', stream, group, entry)
      end
    end
  end
  return true
end

-- Pods get a new name with every replacement. A consumer that holds nothing and gave no sign for many leases is gone,
-- or it rests and is known again at its next read: of one that holds nothing, nothing can be lost. One that holds
-- stays: its entries would go with it.
local function forget_idle()
  for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    local info = {}
    for i = 1, #row, 2 do info[row[i]] = row[i + 1] end
    local is_spare = info.name ~= me and info.name ~= returned and info.pending == 0
    if is_spare and info.idle > """
    + str(FORGET_LEASES)
    + """ * tonumber(lease) then redis.call('XGROUP', 'DELCONSUMER', stream, group, info.name) end
  end
end

local left = 0
if recover > 0 then
  -- Known to the group before its first entry, so that operators see who reads. Where memory is full, it is not yet.
  redis.pcall('XGROUP', 'CREATECONSUMER', stream, group, me)
  local rows = redis.call('XPENDING', stream, group, '-', '+', page, me)
  local done = claim(rows, recover == 1)
  if not done or #rows == page then left = 1 end
end
if cordoned == 0 then claim(redis.call('XPENDING', stream, group, '-', '+', page, returned), true) end
if cordoned == 0 and scan == '1' then
  claim(redis.call('XPENDING', stream, group, 'IDLE', lease, '-', '+', page), true)
  forget_idle()
end
if cordoned == 0 and #taken < want then
  local reply = redis.call('XREADGROUP', 'GROUP', group, me, 'COUNT', want - #taken, 'STREAMS', stream, '>')
  if reply then
    for _, row in ipairs(reply[1][2]) do begin(row[1], row[2], true) end
  end
end
local last = '0-0'
if handled == 0 then
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    if info[2] == group then last = info[8] end
  end
end
return {taken, buried, handled, left, last, refused, cordoned}
"""
)

HAND_OVER: Final = Script(
    LUA_SETTLE
    + """
-- KEYS stream, next stream, states, counts, attempts, errors, blocked, owners.
-- ARGV group, entry, sample, stage, next stage, data. Replies 1, 0, or why the sample was dropped instead.
remove(KEYS[1], ARGV[1], ARGV[2], KEYS[5], KEYS[6], ARGV[3])
local reason = ledger_blocked(KEYS[7], KEYS[8], ARGV[3])
if reason then
  return ledger_move(KEYS[3], KEYS[4], ARGV[3], ARGV[4], 'dropped:' .. reason) and reason or 0
end
if not ledger_move(KEYS[3], KEYS[4], ARGV[3], ARGV[4], ARGV[5]) then return 0 end
redis.call('XADD', KEYS[2], '*', 'id', ARGV[3], 'data', ARGV[6])
return 1
"""
)

DROP: Final = Script(
    LUA_SETTLE
    + """
-- KEYS stream, dead, states, counts, attempts, errors. ARGV group, entry, sample, stage, state, error ('': no letter).
local tries = redis.call('HGET', KEYS[5], ARGV[3]) or '0'
remove(KEYS[1], ARGV[1], ARGV[2], KEYS[5], KEYS[6], ARGV[3])
if not ledger_move(KEYS[3], KEYS[4], ARGV[3], ARGV[4], ARGV[5]) then return 0 end
if ARGV[6] ~= '' then dead_letter(KEYS[2], ARGV[3], ARGV[4], tries, ARGV[6]) end
return 1
"""
)

FINISH: Final = Script(
    LUA_SETTLE
    + """
-- KEYS stream, states, counts, attempts, errors, in training. ARGV group, stage, state, then entry and sample by turns.
-- Replies how many were moved, and {sample, owner}... of those that were erased while the learner had them.
local num_new, erased = 0, {}
for i = 4, #ARGV, 2 do
  local sample = ARGV[i + 1]
  remove(KEYS[1], ARGV[1], ARGV[i], KEYS[4], KEYS[5], sample)
  if ledger_move(KEYS[2], KEYS[3], sample, ARGV[2], ARGV[3]) then
    num_new = num_new + 1
  else
    local owner = redis.call('HGET', KEYS[6], sample)
    if owner then erased[#erased + 1] = {sample, owner} end
  end
end
return {num_new, erased}
"""
)

NOTE_ERROR: Final = Script("""
-- KEYS states, errors. ARGV sample, stage, kind. Kept for the dead letter, should it come to that.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1
""")

RENEW: Final = Script("""
-- KEYS stream. ARGV group, me, entries. Renews the leases that are still mine; replies the entries that are not.
-- JUSTID resets the idle time and leaves the delivery count alone.
local lost = {}
for i = 3, #ARGV do
  local row = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1)[1]
  if row and row[2] == ARGV[2] then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
""")

GIVE_BACK: Final = Script("""
-- KEYS stream, attempts. ARGV group, me, returned, then entry and sample by turns.
-- The entry changes hands inside the pending list, to a consumer that nobody runs as and that every reader looks
-- through. There is no moment at which it is in no list, so a kill loses nothing: before this script it is mine, and
-- idle soon; after it, it is anybody's. It keeps its id, its place and its payload.
local num_returned = 0
for i = 4, #ARGV, 2 do
  local row = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1)[1]
  if row and row[2] == ARGV[2] then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, ARGV[i], 'JUSTID')
    if tonumber(redis.call('HGET', KEYS[2], ARGV[i + 1]) or '0') > 0 then
      redis.call('HINCRBY', KEYS[2], ARGV[i + 1], -1)
    end
    num_returned = num_returned + 1
  end
end
return num_returned
""")

LEAVE: Final = Script("""
-- KEYS stream. ARGV group, me. Deleting a consumer deletes its pending entries with it: only where there are none.
if redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])[1] then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
""")
