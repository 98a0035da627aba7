"""Answers that may be learned from, kept with their prompts, so that judgements on them mean something later.

Everything is scanned before it is kept, the prompt too: what was admitted may be a redacted form of what was asked.
"""

import json
from collections.abc import Sequence
from typing import Final

from prometheus_client import Counter
from redis.asyncio import Redis

from onlinerlhf.gateway.access.callers import Caller, KeyClass
from onlinerlhf.gateway.kept.stored_text import storable
from onlinerlhf.gateway.pii.policy import Policy
from onlinerlhf.gateway.pii.scanner import Scanner
from onlinerlhf.gateway.rights import owned
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Script

ANSWERS_KEPT = Counter(
    "onlinerlhf_gateway_answers_kept", "Answers offered for keeping, by outcome (kept, screened, blocked)", ["outcome"]
)

# Only while the receipt stands: an answer that ends after its owner's erasure leaves nothing.
KEEP: Final = Script(
    """
local answer, of_owner, by_age, blocked, receipt = unpack(KEYS)
local sample, owner, version, prompt, response, kinds, seconds = unpack(ARGV)
local created = tonumber(redis.call('HGET', receipt, 'created') or '-1')
local block = redis.call('HGET', blocked, owner) or ''
local withdrawn = tonumber(string.match(block, '^withdrawn:(%d+)$') or '-1')
if created < 0 or block == 'erased' or withdrawn >= created then return 0 end

local now = tonumber(redis.call('TIME')[1])
local claim = redis.call('HGET', receipt, 'claim')
redis.call('HSET', answer, 'owner', owner, 'created', now, 'claim', claim, 'version', version)
redis.call('HSET', answer, 'prompt', prompt, 'response', response, 'pii_kinds', kinds)
redis.call('EXPIRE', answer, seconds)
for _, index in ipairs({of_owner, by_age}) do
  redis.call('ZREMRANGEBYSCORE', index, '-inf', now - seconds)
  redis.call('ZADD', index, now, sample)
end
redis.call('EXPIRE', of_owner, seconds)
return 1
"""
)


class Answers:
    """Keeps them for as long as data are kept. Safe to repeat."""

    def __init__(
        self, redis: Redis, keys: RunKeys, scanner: Scanner, *, policies: dict[KeyClass, Policy], retention_seconds: int
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._scanner = scanner
        self._policies = policies
        self._retention_seconds = retention_seconds

    async def keep(
        self, sample_id: str, caller: Caller, *, prompt: Sequence[tuple[str, str]], response: str, version: int
    ) -> None:
        """Keep an answer to a prompt that passed the screens, (role, text) a turn, unless policy or owner forbid it."""
        policy = self._policies[caller.key.key_class]
        screened = []
        for text in (*(text for _, text in prompt), response):
            stored = await storable(text, self._scanner, policy)
            if stored is None:
                ANSWERS_KEPT.labels("screened").inc()
                return
            screened.append(stored)
        *turns, answer = screened
        messages = [{"role": role, "content": turn.text} for (role, _), turn in zip(prompt, turns, strict=True)]
        was_kept = await KEEP.run(
            self._redis,
            [
                owned.answer(self._keys, sample_id),
                owned.answers_of(self._keys, caller.owner),
                owned.answers_by_age(self._keys),
                self._keys.blocked,
                self._keys.receipt(sample_id),
            ],
            [
                sample_id,
                caller.owner,
                version,
                json.dumps(messages, ensure_ascii=False),
                answer.text,
                " ".join(sorted({kind for each in screened for kind in each.kinds})),
                self._retention_seconds,
            ],
        )
        ANSWERS_KEPT.labels("kept" if was_kept else "blocked").inc()
