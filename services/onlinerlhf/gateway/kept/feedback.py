"""Feedback: what clients think of answers that they really received. Kept for the reward model; never a reward itself.

form -> key class -> receipts -> personal data out -> one script: retry, blocked owner, bound, record

The id is a keyed digest of API key and idempotency key, so that a retry finds the first record, and whoever's judgement
is not kept gets a receipt of the same form.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter
from redis.asyncio import Redis

from onlinerlhf.core.errors import ConsentMissing, IdempotencyConflict, InvalidInput, LimitReached, NotFound
from onlinerlhf.gateway.access.callers import ApiKey, KeyClass
from onlinerlhf.gateway.access.identity import HashKey
from onlinerlhf.gateway.admission.normalise import is_blank
from onlinerlhf.gateway.kept.judgements import (
    Correction,
    Judgement,
    Ranking,
    Score,
    Thumb,
    body_of,
    check,
    kind_of,
    samples_of,
    value_of,
)
from onlinerlhf.gateway.kept.stored_text import storable
from onlinerlhf.gateway.pii.policy import Policy
from onlinerlhf.gateway.pii.scanner import Scanner
from onlinerlhf.gateway.requests import form
from onlinerlhf.gateway.requests.receipts import ReceiptKind, ReceiptRecord, Receipts
from onlinerlhf.gateway.rights import owned
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Script

__all__ = ["Correction", "Feedback", "FeedbackReceipt", "Judgement", "Ranking", "Score", "Thumb"]

MAX_PER_ANSWER: Final = 64
"""Judgements kept of one answer."""

_NOT_RECEIVED: Final = "no such sample among the answers that this key received"

FEEDBACK = Counter("onlinerlhf_gateway_feedback", "Judgements, by kind and key class", ["kind", "key_class"])

# KEYS: record, by owner, by age, blocked, prompt; then an answer and a receipt for each sample. ARGV[8..]: pairs of
# field and value. The text is kept only where its prompt or answer is, which is where there was consent.
GIVE: Final = Script(
    """
local record, of_owner, by_age, blocked, prompt = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, body, owner, text, newest = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local seconds, bound = tonumber(ARGV[6]), tonumber(ARGV[7])
local block = redis.call('HGET', blocked, owner) or ''
if block == 'erased' then return 'given' end

local earlier = redis.call('HGET', record, 'body')
if earlier then return earlier == body and 'replayed' or 'conflict' end

local has_source = redis.call('EXISTS', prompt) == 1
for i = 6, #KEYS, 2 do
  local judged = redis.call('HMGET', KEYS[i + 1], 'owner', 'num_judgements')
  if judged[1] ~= owner then return 'gone' end
  if tonumber(judged[2] or '0') >= bound then return 'full' end
  has_source = has_source or redis.call('EXISTS', KEYS[i]) == 1
end
local withdrawn = tonumber(string.match(block, '^withdrawn:(%d+)$') or '-1')
if not has_source or withdrawn >= newest then text = '' end

local now = tonumber(redis.call('TIME')[1])
for i = 7, #KEYS, 2 do redis.call('HINCRBY', KEYS[i], 'num_judgements', 1) end
redis.call('HSET', record, 'body', body, 'owner', owner, 'created', now, 'text', text, unpack(ARGV, 8))
redis.call('EXPIRE', record, seconds)
for _, index in ipairs({of_owner, by_age}) do
  redis.call('ZREMRANGEBYSCORE', index, '-inf', now - seconds)
  redis.call('ZADD', index, now, id)
end
redis.call('EXPIRE', of_owner, seconds)
return 'given'
"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackReceipt:
    """A judgement was taken in; what was kept of it is not told."""

    feedback_id: str
    replayed: bool


class Feedback:
    """Takes judgements. Any number of gateways may share one store; every call is safe to repeat."""

    def __init__(
        self,
        redis: Redis,
        keys: RunKeys,
        hash_key: HashKey,
        receipts: Receipts,
        scanner: Scanner,
        *,
        retention_seconds: int,
        max_correction_bytes: int,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._hash_key = hash_key
        self._receipts = receipts
        self._scanner = scanner
        self._retention_seconds = retention_seconds
        self._max_correction_bytes = max_correction_bytes

    async def give(self, key: ApiKey, judgement: Judgement, *, idempotency_key: str) -> FeedbackReceipt:
        """Raises InvalidInput, ConsentMissing, NotFound, IdempotencyConflict or LimitReached; then nothing is kept.

        NotFound is the same for a sample of another key and for one that never was.
        """
        form.name(idempotency_key, what="idempotency_key")
        check(judgement, max_correction_bytes=self._max_correction_bytes)
        receipts = await self._received(key, judgement)
        text = await self._clean_text(judgement)
        digests = await self._hash_key.digests()
        feedback_id = digests.of("feedback", key.key_id.encode(), idempotency_key.encode())
        body = digests.of("feedback_body", body_of(judgement))
        fields = _fields(key, judgement, receipts)
        match await self._store(feedback_id, body=body, text=text, fields=fields, receipts=receipts):
            case b"given":
                FEEDBACK.labels(kind_of(judgement), key.key_class).inc()
                return FeedbackReceipt(feedback_id=feedback_id, replayed=False)
            case b"replayed":
                return FeedbackReceipt(feedback_id=feedback_id, replayed=True)
            case b"conflict":
                raise IdempotencyConflict("this idempotency_key was used with another judgement")
            case b"full":
                raise LimitReached(f"an answer has {MAX_PER_ANSWER} judgements, which is the most")
            case _:
                raise NotFound(_NOT_RECEIVED)

    async def _store(
        self, feedback_id: str, *, body: str, text: str, fields: Sequence[str], receipts: Sequence[ReceiptRecord]
    ) -> bytes:
        owner = receipts[0].owner
        judged = [
            name
            for receipt in receipts
            for name in (owned.answer(self._keys, receipt.sample_id), self._keys.receipt(receipt.sample_id))
        ]
        verdict = await GIVE.run(
            self._redis,
            [
                owned.feedback(self._keys, feedback_id),
                owned.feedback_of(self._keys, owner),
                owned.feedback_by_age(self._keys),
                self._keys.blocked,
                self._keys.prompt(receipts[0].claim_id),
                *judged,
            ],
            [
                feedback_id,
                body,
                owner,
                text,
                max(receipt.created_at_seconds for receipt in receipts),
                self._retention_seconds,
                MAX_PER_ANSWER,
                *fields,
            ],
        )
        return bytes(verdict)

    async def _received(self, key: ApiKey, judgement: Judgement) -> Sequence[ReceiptRecord]:
        if isinstance(judgement, Correction) and key.key_class is not KeyClass.PLAYGROUND:
            message = "corrections are learned from, which this key's class does not allow"
            raise ConsentMissing(message, reason="production_key")
        found = await asyncio.gather(*(self._receipts.received(sample) for sample in samples_of(judgement)))
        receipts = [
            receipt
            for receipt in found
            if receipt is not None and receipt.key_id == key.key_id and receipt.kind is ReceiptKind.ANSWER
        ]
        if len(receipts) != len(found):
            raise NotFound(_NOT_RECEIVED)
        if len({receipt.prompt_digest for receipt in receipts}) > 1:
            raise InvalidInput("a ranking of answers to different prompts", reason="bad_ranking")
        return receipts

    async def _clean_text(self, judgement: Judgement) -> str:
        """Without personal data; empty where the scanner fails, for then nobody knows what is in it."""
        if not isinstance(judgement, Correction):
            return ""
        text = form.text(judgement.text, what="correction")
        if is_blank(text):
            raise InvalidInput("the correction is empty, or only whitespace and invisible characters", reason="empty")
        screened = await storable(text, self._scanner, Policy.REDACT)
        return "" if screened is None else screened.text


def _fields(key: ApiKey, judgement: Judgement, receipts: Sequence[ReceiptRecord]) -> list[str]:
    """Field, value, field, value, …"""
    values = {
        "kind": kind_of(judgement),
        "value": value_of(judgement),
        "samples": " ".join(samples_of(judgement)),
        "versions": " ".join(str(receipt.version) for receipt in receipts),
        "claim": receipts[0].claim_id,
        "key_id": key.key_id,
        "key_class": key.key_class.value,
    }
    return [word for pair in values.items() for word in pair]
