"""Withdrawal and erasure on the streams: what a blocked owner's samples meet beside the refusal at every read.

A sample that a learner holds when its owner is erased may be in a step already, whose version nobody knows yet. It is
noted in a hash, sample -> owner, until the learner finishes it or finds it gone before the step.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final

from redis.asyncio import Redis

from onlinerlhf.core.samples import Stage
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.leases import Delivery
from onlinerlhf.runtime.redis import Patience, Script, command
from onlinerlhf.runtime.stream_scripts import LUA_SETTLE


def in_training(keys: RunKeys) -> str:
    """Hash: erased samples that a learner held, with their owner."""
    return keys.key("erased", "in_training")


NOTE_VERSION: Final = Script("""
-- KEYS versions of an erased owner, in training. ARGV version, then samples. Their step made the version.
redis.call('SADD', KEYS[1], ARGV[1])
for i = 2, #ARGV do redis.call('HDEL', KEYS[2], ARGV[i]) end
return 1
""")

CONFIRM: Final = Script(
    LUA_SETTLE
    + """
-- KEYS stream, states, counts, attempts, errors, blocked, owners, in training.
-- ARGV group, stage, then entry and sample by turns. Takes away those that may not be used any more.
-- Replies {position, why dropped, or '' where it had moved on before}...
local gone = {}
for i = 3, #ARGV, 2 do
  local sample, reason = ARGV[i + 1], ledger_blocked(KEYS[6], KEYS[7], ARGV[i + 1])
  if reason or redis.call('HGET', KEYS[2], sample) ~= ARGV[2] then
    remove(KEYS[1], ARGV[1], ARGV[i], KEYS[4], KEYS[5], sample)
    redis.call('HDEL', KEYS[8], sample)
    local moved = reason and ledger_move(KEYS[2], KEYS[3], sample, ARGV[2], 'dropped:' .. reason)
    gone[#gone + 1] = {(i - 3) / 2, moved and reason or ''}
  end
end
return gone
"""
)

SWEEP: Final = Script(
    LUA_SETTLE
    + """
-- KEYS stream, states, counts, attempts, errors, blocked, owners, in training.
-- ARGV group, stage, owner, returned, cursor ('-': from the start), how many entries to look at.
-- Takes a blocked owner's entries off the stream. What a learner holds may be in its step already: of an erased owner
-- it is noted, so that the version is told when it is known; after a withdrawal the learner asks before the step.
-- Replies the next cursor ('': that was all), entries removed, samples dropped, of them in a learner's hands.
local stream, states, counts, blocked, owners = KEYS[1], KEYS[2], KEYS[3], KEYS[6], KEYS[7]
local group, stage, owner, returned, page = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[6])
local rows = redis.call('XRANGE', stream, ARGV[5], '+', 'COUNT', page)
local num_removed, num_dropped, num_held = 0, 0, 0

local function is_held(entry)
  if stage ~= 'scored' then return false end
  local row = redis.pcall('XPENDING', stream, group, entry, entry, 1)
  return not row.err and row[1] and row[1][2] ~= returned
end

local function sweep(entry, sample)
  local whose = redis.call('HGET', owners, sample)
  if not whose or string.sub(whose, 1, #owner) ~= owner then return end
  local reason = ledger_blocked(blocked, owners, sample)
  local held = reason and is_held(entry)
  if not reason or (held and reason ~= 'erased') then return end
  remove(stream, group, entry, KEYS[4], KEYS[5], sample)
  num_removed = num_removed + 1
  if not ledger_move(states, counts, sample, stage, 'dropped:' .. reason) then return end
  num_dropped = num_dropped + 1
  if held then
    redis.call('HSET', KEYS[8], sample, owner)
    num_held = num_held + 1
  end
end

for _, row in ipairs(rows) do
  for i = 1, #row[2], 2 do
    if row[2][i] == 'id' then sweep(row[1], row[2][i + 1]) end
  end
end
return {#rows == page and '(' .. rows[page][1] or '', num_removed, num_dropped, num_held}
"""
)


def sweep_keys(keys: RunKeys, stage: Stage) -> list[str]:
    """Of SWEEP and CONFIRM."""
    return [
        keys.stream(stage),
        keys.ledger_states,
        keys.ledger_counts,
        keys.attempts(stage),
        keys.errors(stage),
        keys.blocked,
        keys.ledger_owners,
        in_training(keys),
    ]


class Rights:
    """What a consumer of one stage asks and notes about its samples' owners."""

    def __init__(self, redis: Redis, keys: RunKeys, stage: Stage, patience: Patience) -> None:
        self._redis = redis
        self._keys = keys
        self._stage = stage
        self._patience = patience

    async def confirm(self, deliveries: Sequence[Delivery]) -> dict[int, str]:
        """Positions of those that may not be used any more, and are gone now -> why; '': others moved them on."""
        pairs = [part for delivery in deliveries for part in (delivery.entry_id, delivery.sample_id)]
        keys, arguments = sweep_keys(self._keys, self._stage), [self._keys.group, self._stage, *pairs]
        gone = await self._patience("confirm what is held", partial(CONFIRM.run, self._redis, keys, arguments))
        return {int(at): reason.decode() for at, reason in gone}

    async def note_version(self, erased: Sequence[tuple[bytes, bytes]], version: int) -> None:
        """Of (sample, owner) pairs that FINISH found erased. A crash before this: it finds them so again."""
        samples_by_owner: dict[str, list[bytes]] = {}
        for sample, raw in erased:
            samples_by_owner.setdefault(raw.decode(), []).append(sample)
        for owner, samples in samples_by_owner.items():
            keys = [self._keys.erased_versions(owner), in_training(self._keys)]
            note = partial(NOTE_VERSION.run, self._redis, keys, [version, *samples])
            await self._patience("note the version of erased samples", note)

    async def forget_in_training(self) -> None:
        """For a learner that has just started and has finished all that it learned from before: it is in no step."""
        forget = partial(command, self._redis, "DEL", in_training(self._keys))
        await self._patience("forget what was in training", forget)
