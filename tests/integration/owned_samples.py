"""Samples with an owner, put anywhere in the pipeline as their producers would."""

import hashlib
from dataclasses import dataclass

from redis.asyncio import Redis

from onlinerlhf.core.samples import ConsentProof, Prompt, Stage
from onlinerlhf.gateway.access.identity import Digests
from onlinerlhf.gateway.admission.dedup import DIGEST_BYTES
from onlinerlhf.gateway.admission.pool import dedup_of
from onlinerlhf.runtime import wire
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import LUA_TRANSITION
from onlinerlhf.runtime.redis import Script, command

HASH_KEY = b"a key of 32 bytes, for tests only"
SHOWN_AT = 1_700_000_000
ANN = Digests(HASH_KEY).owner("acme", "ann")
BOB = Digests(HASH_KEY).owner("acme", "bob")
ACME = Digests(HASH_KEY).tenant("acme", ANN)

_PUT = Script(
    LUA_TRANSITION
    + """
if not ledger_admit(KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2], ARGV[3]) then return 0 end
if ARGV[2] == 'pool' then redis.call('RPUSH', KEYS[4], ARGV[1])
else redis.call('XADD', KEYS[4], '*', 'id', ARGV[1], 'data', ARGV[4]) end
return 1
"""
)


def owned_prompt(sample_id: str, owner: str, *, shown_at: float = SHOWN_AT) -> Prompt:
    """A prompt of an organisation's user."""
    return Prompt(
        sample_id=sample_id,
        prompt_id=sample_id.partition(".")[0],
        owner=owner,
        tenant=ACME,
        consent=ConsentProof(key_class="playground", notice_version="1", shown_at_seconds=shown_at),
        text="words that nobody else may see",
        token_ids=(4, 5),
        epoch=0,
        admitted_at_seconds=shown_at,
    )


@dataclass(frozen=True, slots=True)
class OwnedSamples:
    """Of one run."""

    client: Redis
    keys: RunKeys

    async def put(
        self, sample_id: str, owner: str, stage: Stage, *, payload: bytes | None = None, shown_at: int = SHOWN_AT
    ) -> None:
        """Into the pool or a stream, with ledger entry, record, and places in the indices."""
        keys = self.keys
        place = keys.pool_new(ACME) if stage is Stage.POOL else keys.stream(stage)
        record = wire.dump_prompt(owned_prompt(sample_id, owner, shown_at=shown_at))
        await _PUT.run(
            self.client,
            [keys.ledger_states, keys.ledger_counts, keys.ledger_owners, place],
            [sample_id, stage, f"{owner}|{shown_at}", record if payload is None else payload],
        )
        prompt_id = sample_id.partition(".")[0]
        await command(self.client, "SET", keys.prompt(prompt_id), record)
        await command(self.client, "ZADD", keys.prompts_by_age, shown_at, prompt_id)
        await command(self.client, "ZADD", keys.prompts_of(owner), 1, prompt_id)
        await command(self.client, "ZADD", keys.pool_tenants, 0, ACME)
        digests = [hashlib.sha256(f"{prompt_id} {part}".encode()).digest()[:DIGEST_BYTES] for part in range(2)]
        await command(self.client, "HSET", keys.dedup, digests[0], prompt_id, digests[1], f"~{prompt_id[:8]}")
        await command(self.client, "HSET", dedup_of(keys, owner), prompt_id, b"".join(digests))

    async def put_for_reuse(self, sample_id: str, owner: str) -> None:
        """`<prompt>.<epoch>`: waiting for a further pass, the first one trained by version 3."""
        prompt_id = sample_id.partition(".")[0]
        await self.put(prompt_id, owner, Stage.POOL)
        await command(self.client, "LREM", self.keys.pool_new(ACME), 0, prompt_id)
        await self.set_state(prompt_id, "trained:3")
        await command(self.client, "RPUSH", self.keys.pool_reuse, sample_id)

    async def set_state(self, sample_id: str, state: str) -> None:
        """Where it came from the pool."""
        move = Script(LUA_TRANSITION + "return ledger_move(KEYS[1], KEYS[2], ARGV[1], 'pool', ARGV[2]) and 1 or 0")
        assert await move.run(self.client, [self.keys.ledger_states, self.keys.ledger_counts], [sample_id, state]) == 1

    async def block(self, owner: str, word: str) -> None:
        """A tombstone or withdrawal whose sweep is yet to come."""
        await command(self.client, "HSET", self.keys.blocked, owner, word)
