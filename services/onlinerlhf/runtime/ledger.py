"""The ledger: every sample's state, and how many samples each state has. admitted = trained + dropped + pending.

States: pool | prompts | rollouts | scored | trained | trained:<version> | dropped:<reason>. A transition compares the
state first, so the state is also the done marker: the first commit wins, and the second writes nothing.

No sample comes in without proof of its owner's consent, and every script that takes one further asks whether it still
counts.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from onlinerlhf.core.samples import DropReason, Outcome, Stage
from onlinerlhf.runtime import metrics
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Script, away_reason, command
from onlinerlhf.runtime.tasks import set_within

log = logging.getLogger(__name__)

EXPORT_SECONDS: Final = 2.0

LUA_TRANSITION: Final = """
-- The counter that a state adds to.
local function ledger_field(state)
  if string.sub(state, 1, 8) == 'trained:' then return 'trained' end
  return state
end

-- Whether consent of proof '<owner>|<second>' has ceased to count: nil, 'erased' or 'withdrawn'.
local function ledger_proof_blocked(blocked, proof)
  local owner, shown = string.match(proof, '^(%x+)|(%d+)$')
  local word = owner and redis.call('HGET', blocked, owner)
  if not owner or word == 'erased' then return 'erased' end
  if not word then return nil end
  local until_second = tonumber(string.match(word, '^withdrawn:(%d+)$'))
  -- A word that nobody knows blocks.
  if not until_second or until_second >= tonumber(shown) then return 'withdrawn' end
  return nil
end

-- The same for a sample. One without proof counts as erased: its proof goes only with its owner's data.
local function ledger_blocked(blocked, owners, sample)
  return ledger_proof_blocked(blocked, redis.call('HGET', owners, sample) or '')
end

-- Proof of consent is 32 hexadecimal digits, '|' and a second; the script fails where it is not.
local function ledger_check_proof(proof)
  if not string.find(proof or '', '^%x+|%d+$') or string.find(proof, '|', 1, true) ~= 33 then
    error('no proof of consent')
  end
end

-- A new sample and the proof of its owner's consent. False where it is known already.
local function ledger_admit(states, counts, owners, sample, stage, proof)
  ledger_check_proof(proof)
  if redis.call('HSETNX', states, sample, stage) == 0 then return false end
  redis.call('HSET', owners, sample, proof)
  redis.call('HINCRBY', counts, 'admitted', 1)
  redis.call('HINCRBY', counts, stage, 1)
  return true
end

-- From one state to another. False, and nothing written, where the sample is not in the first.
local function ledger_move(states, counts, sample, from, to)
  if redis.call('HGET', states, sample) ~= from then return false end
  redis.call('HSET', states, sample, to)
  redis.call('HINCRBY', counts, ledger_field(from), -1)
  redis.call('HINCRBY', counts, ledger_field(to), 1)
  return true
end
"""
"""Lua functions that a script starts with where it admits or moves samples."""

_STREAM_STATE: Final = Script("""
-- KEYS stream. ARGV group. Replies its length, the age of its oldest entry, and the longest time that an entry in hand
-- went without a sign of life, both in ms by this server's clock. Payloads stay here.
local length = redis.call('XLEN', KEYS[1])
local oldest, idle = 0, 0
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if first then
  local now = redis.call('TIME')
  oldest = math.max(0, now[1] * 1000 + math.floor(now[2] / 1000) - tonumber(string.match(first[1], '^%d+')))
end
-- Each look asks for one that is idle for longer than the last found: a few looks, as the first are the oldest.
for _ = 1, 64 do
  local rows = redis.pcall('XPENDING', KEYS[1], ARGV[1], 'IDLE', idle + 1, '-', '+', 1)
  -- No group yet: nobody has read, and nothing is in hand.
  if rows.err and string.find(rows.err, 'NOGROUP', 1, true) then break end
  if rows.err then return rows end
  if not rows[1] then break end
  idle = rows[1][3]
end
return {length, oldest, idle}
""")


def trained_state(version: int) -> str:
    """State of a sample that the step which made `version` learned from."""
    return f"{Outcome.TRAINED}:{version}"


def dropped_state(reason: DropReason) -> str:
    """State of a sample dropped for this reason."""
    return f"{Outcome.DROPPED}:{reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerCounts:
    """How many samples are where."""

    admitted: int
    trained: int
    dropped: Mapping[str, int]
    """By reason."""
    pending: Mapping[Stage, int]

    @property
    def imbalance(self) -> int:
        """Samples unaccounted for. Not 0: something broke conservation."""
        return self.admitted - self.trained - sum(self.dropped.values()) - sum(self.pending.values())

    @classmethod
    def of(cls, fields: Mapping[str, int]) -> "LedgerCounts":
        """From the counters `admitted` and one a state; `trained:<version>` is not a counter but `trained` is."""
        prefix = f"{Outcome.DROPPED}:"
        return cls(
            admitted=fields.get("admitted", 0),
            trained=fields.get(Outcome.TRAINED, 0),
            dropped={
                field.removeprefix(prefix): num
                for field, num in sorted(fields.items())
                if field.startswith(prefix) and num
            },
            pending={stage: fields.get(stage, 0) for stage in Stage},
        )


class Ledger:
    """Reads the ledger. It is written only by scripts that do the work itself."""

    def __init__(self, redis: Redis, keys: RunKeys) -> None:
        self._redis = redis
        self._keys = keys

    async def counts(self) -> LedgerCounts:
        """The counters: one consistent snapshot, whatever the number of samples."""
        fields = await command(self._redis, "HGETALL", self._keys.ledger_counts)
        return LedgerCounts.of({field.decode(): int(num) for field, num in fields.items()})

    async def state(self, sample_id: str) -> str | None:
        """State of a sample; None where it is unknown."""
        state = await command(self._redis, "HGET", self._keys.ledger_states, sample_id)
        return None if state is None else str(state, "utf-8")

    async def states(self) -> dict[str, str]:
        """State of every sample. Not a snapshot while the run goes on."""
        states: dict[str, str] = {}
        cursor = 0
        while True:
            cursor, page = await command(self._redis, "HSCAN", self._keys.ledger_states, cursor, "COUNT", 1000)
            states.update((sample_id.decode(), state.decode()) for sample_id, state in page.items())
            if cursor == 0:
                return states

    async def audit(self) -> LedgerCounts:
        """The counts anew from the states, to check the counters by."""
        return count_states((await self.states()).values())

    async def export_forever(self, stop: asyncio.Event) -> None:
        """Keep the gauges of ledger and streams current until `stop`."""
        while not stop.is_set():
            try:
                await self._export()
            except (RedisError, OSError) as error:
                if away_reason(error) is None:
                    raise
                log.debug("no ledger to export", extra={"reason": away_reason(error)})
            await set_within(stop, EXPORT_SECONDS)

    async def _export(self) -> None:
        counts = await self.counts()
        metrics.LEDGER_ADMITTED.set(counts.admitted)
        metrics.LEDGER_IMBALANCE.set(counts.imbalance)
        metrics.LEDGER_SAMPLES.labels(Outcome.TRAINED, "").set(counts.trained)
        for reason, num in counts.dropped.items():
            metrics.LEDGER_SAMPLES.labels(Outcome.DROPPED, reason).set(num)
        for stage, num in counts.pending.items():
            metrics.LEDGER_SAMPLES.labels(stage, "").set(num)
            if stage is not Stage.POOL:
                await self._export_stream(stage)

    async def _export_stream(self, stage: Stage) -> None:
        keys, group = [self._keys.stream(stage)], [self._keys.group]
        backlog, oldest_ms, idle_ms = await _STREAM_STATE.run(self._redis, keys, group)
        metrics.STREAM_BACKLOG.labels(stage).set(backlog)
        metrics.STREAM_OLDEST.labels(stage).set(oldest_ms / 1000)
        metrics.STREAM_PENDING_IDLE.labels(stage).set(idle_ms / 1000)
        dead = await command(self._redis, "XLEN", self._keys.dead(stage))
        metrics.DEAD_STREAM_LENGTH.labels(stage).set(dead)


def count_states(states: Iterable[str]) -> LedgerCounts:
    """Counts of a complete list of states."""
    fields: Counter[str] = Counter()
    for state in states:
        fields["admitted"] += 1
        fields[Outcome.TRAINED if state.startswith(f"{Outcome.TRAINED}:") else state] += 1
    return LedgerCounts.of(fields)
