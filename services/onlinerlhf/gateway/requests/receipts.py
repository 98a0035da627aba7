"""Receipts: which key got which sample, on whose behalf. One script a step, exact over many gateways.

claim:     idempotency key -> the samples given before, or fresh ids with a receipt each
complete:  which policy versions the answer came from, where its receipt still stands

A receipt is given before anything is screened, so that it tells nothing of a prompt's fate. All times are the Redis
server's.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis

from onlinerlhf.core.errors import IdempotencyConflict
from onlinerlhf.core.samples import VersionSpan
from onlinerlhf.gateway.access.callers import Caller
from onlinerlhf.gateway.access.identity import Digests, HashKey
from onlinerlhf.gateway.rights.owned import idempotency_of
from onlinerlhf.runtime.batches import run_all
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Argument, Script, command

# KEYS[5..]: the receipts; ARGV[10..]: their sample ids. An erased owner gets ids and leaves no trace.
CLAIM: Final = Script(
    """
local idempotency, idempotency_of, receipts_of, blocked = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local digest, body, owner, key_id, kind = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local idempotency_seconds, retention_seconds, tenant = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
local prompt = ARGV[9]
if redis.call('HGET', blocked, owner) == 'erased' then return {'new'} end

if digest ~= '' then
  local earlier = redis.call('HMGET', idempotency, 'body', 'samples')
  if earlier[1] and earlier[1] ~= body then return {'conflict'} end
  if earlier[1] then return {'earlier', earlier[2]} end
end

local now = tonumber(redis.call('TIME')[1])
local function index(name, member, seconds)
  redis.call('ZREMRANGEBYSCORE', name, '-inf', now - seconds)
  redis.call('ZADD', name, now, member)
  redis.call('EXPIRE', name, seconds)
end
local samples = {}
for i = 10, #ARGV do
  samples[#samples + 1] = ARGV[i]
  local receipt = KEYS[i - 5]
  redis.call('HSET', receipt, 'key_id', key_id, 'owner', owner, 'tenant', tenant, 'created', now)
  redis.call('HSET', receipt, 'kind', kind, 'claim', ARGV[10], 'prompt', prompt)
  redis.call('EXPIRE', receipt, retention_seconds)
  index(receipts_of, ARGV[i], retention_seconds)
end
if digest ~= '' then
  redis.call('HSET', idempotency, 'body', body, 'samples', table.concat(samples, ' '))
  redis.call('EXPIRE', idempotency, idempotency_seconds)
  index(idempotency_of, digest, idempotency_seconds)
end
return {'new'}
"""
)

# Never brings back a receipt that erasure or age has taken.
COMPLETE: Final = Script(
    """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'versions', ARGV[1], 'num_tokens', ARGV[2])
return 1
"""
)


class ReceiptKind(StrEnum):
    """What the caller got."""

    PROMPT = "prompt"
    """A prompt was taken in; nobody saw an answer."""
    ANSWER = "answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The samples that a request stands for."""

    sample_ids: tuple[str, ...]
    """One an answer; the first names the claim."""
    replayed: bool
    """An earlier call with the same idempotency key made them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptRecord:
    """What is kept of a receipt."""

    sample_id: str
    key_id: str
    """The API key that received it."""
    owner: str
    tenant: str
    kind: ReceiptKind
    claim_id: str
    """Equal for all answers to one request."""
    prompt_digest: str
    """Equal for all answers to one prompt."""
    created_at_seconds: int
    version_spans: tuple[VersionSpan, ...] = ()
    """Empty until the answer is complete."""
    num_tokens: int = 0

    @property
    def version(self) -> int:
        """The newest policy version behind the answer; 0 where the answer was never completed."""
        return max((span.version for span in self.version_spans), default=0)


class WantedReceipt(NamedTuple):
    """A request that is to get a receipt: as `Receipts.claim` takes it."""

    caller: Caller
    idempotency_key: str
    body: bytes
    kind: ReceiptKind
    sample_ids: tuple[str, ...]


def new_sample_ids(num: int) -> tuple[str, ...]:
    """Unguessable, so that an id can be shown to whoever received it and to nobody else."""
    return tuple(uuid.uuid4().hex for _ in range(num))


class Receipts:
    """Gives and reads receipts. Any number of gateways may share them; every call is one trip and safe to repeat."""

    def __init__(
        self, redis: Redis, keys: RunKeys, hash_key: HashKey, *, idempotency_seconds: int, retention_seconds: int
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._hash_key = hash_key
        self._idempotency_seconds = idempotency_seconds
        self._retention_seconds = retention_seconds

    async def claim(
        self,
        caller: Caller,
        *,
        idempotency_key: str,
        body: bytes,
        num_samples: int,
        kind: ReceiptKind = ReceiptKind.ANSWER,
        sample_ids: tuple[str, ...] | None = None,
    ) -> Claim:
        """Sample ids for a request, or those that the same request got before. Raises IdempotencyConflict.

        body: the prompt, which a retry repeats, in any unambiguous encoding. Empty idempotency_key: always fresh ids.
        Whoever repeats the call after a lost reply passes the same `sample_ids`, so that it does not count as a replay.
        """
        fresh = sample_ids or new_sample_ids(num_samples)
        wanted = WantedReceipt(caller, idempotency_key, body, kind, fresh)
        reply = await CLAIM.run(self._redis, *self._call(wanted, await self._hash_key.digests()))
        return _claim(reply, fresh)

    async def claim_all(self, wanted: Sequence["WantedReceipt"]) -> list[Claim | IdempotencyConflict]:
        """The same for many requests in one trip, each with its own outcome."""
        digests = await self._hash_key.digests()
        replies = await run_all(self._redis, CLAIM, [self._call(each, digests) for each in wanted])
        claims: list[Claim | IdempotencyConflict] = []
        for each, reply in zip(wanted, replies, strict=True):
            try:
                claims.append(_claim(reply, each.sample_ids))
            except IdempotencyConflict as conflict:
                claims.append(conflict)
        return claims

    def _call(self, wanted: "WantedReceipt", digests: Digests) -> tuple[list[str], list[Argument]]:
        caller, fresh = wanted.caller, wanted.sample_ids
        # Of the owner too: a word that two owners' records had in common would let an erasure take both.
        parts = (caller.owner.encode(), wanted.idempotency_key.encode())
        digest = digests.of("idempotency_key", *parts) if wanted.idempotency_key else ""
        return (
            [
                self._keys.idempotency(caller.owner, digest),
                idempotency_of(self._keys, caller.owner),
                self._keys.receipts_of(caller.owner),
                self._keys.blocked,
                *(self._keys.receipt(sample_id) for sample_id in fresh),
            ],
            [
                digest,
                digests.of("body", wanted.kind.encode(), str(len(fresh)).encode(), wanted.body),
                caller.owner,
                caller.key.key_id,
                wanted.kind,
                self._idempotency_seconds,
                self._retention_seconds,
                caller.tenant,
                digests.of("prompt", wanted.body),
                *fresh,
            ],
        )

    async def complete(self, sample_id: str, *, versions: Sequence[VersionSpan], num_tokens: int) -> None:
        """An answer has ended. Nothing happens where its receipt is gone."""
        spans = " ".join(f"{span.version}:{span.num_tokens}" for span in versions)
        await COMPLETE.run(self._redis, [self._keys.receipt(sample_id)], [spans, num_tokens])

    async def received(self, sample_id: str) -> ReceiptRecord | None:
        """None where there is none (any more)."""
        if not is_sample_id(sample_id):
            return None
        fields = await command(self._redis, "HGETALL", self._keys.receipt(sample_id))
        return parse_receipt(sample_id, fields) if fields else None

    async def is_of_organisation(self, receipt: ReceiptRecord, organisation: str) -> bool:
        """Whether a sample was given to a key of this organisation. Not for the empty one, which is nobody's."""
        digests = await self._hash_key.digests()
        return receipt.tenant == digests.tenant(organisation, receipt.owner)


def _claim(reply: Any, fresh: tuple[str, ...]) -> Claim:
    verdict, *earlier = reply
    if verdict == b"conflict":
        raise IdempotencyConflict("this idempotency_key was used with another request; a new request needs a new key")
    given = tuple(earlier[0].decode("ascii").split()) if verdict == b"earlier" else fresh
    return Claim(sample_ids=given, replayed=given != fresh)


def is_sample_id(value: str) -> bool:
    """Whether it may be one of ours: what clients send becomes part of a key only then."""
    return len(value) == 32 and all(character in "0123456789abcdef" for character in value)


def parse_receipt(sample_id: str, fields: Any) -> ReceiptRecord:
    """From the hash as Redis replies it."""
    words = {name.decode(): value.decode() for name, value in fields.items()}
    spans = (span.partition(":") for span in words.get("versions", "").split())
    return ReceiptRecord(
        sample_id=sample_id,
        key_id=words["key_id"],
        owner=words["owner"],
        tenant=words["tenant"],
        kind=ReceiptKind(words["kind"]),
        claim_id=words["claim"],
        prompt_digest=words["prompt"],
        created_at_seconds=int(words["created"]),
        version_spans=tuple(VersionSpan(version=int(version), num_tokens=int(num)) for version, _, num in spans),
        num_tokens=int(words.get("num_tokens", 0)),
    )
