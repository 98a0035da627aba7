"""Data go when they are old. Records expire by themselves; this takes away what pointed at them.

    prompts                      still in the pool: dropped, expired; record, digests, places in the indices
    receipts, answers, feedback  places in the indices by owner and by age

What stays is the ledger: each sample's state, and whose it was, so that a later erasure can name the versions.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Set
from contextlib import suppress
from functools import partial
from typing import Any, Final

from redis.asyncio import Redis

from onlinerlhf.core.errors import Unavailable
from onlinerlhf.core.samples import DropReason, Stage
from onlinerlhf.gateway.admission.pool import held_out
from onlinerlhf.gateway.rights.erasure_scripts import FORGET_PROMPTS, forget_prompts_keys
from onlinerlhf.gateway.rights.owned import answers_by_age, feedback_by_age
from onlinerlhf.runtime import metrics
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import LUA_TRANSITION, dropped_state
from onlinerlhf.runtime.redis import Patience, Script, command
from onlinerlhf.runtime.tasks import set_within

log = logging.getLogger(__name__)

SWEEP_SECONDS: Final = 3600.0
"""Between two sweeps: data may be this much older than they are to get."""
_PAGE: Final = 200
_GIVE_UP_SECONDS: Final = 10.0
_INDICES: Final = ("receipts_of", "answers_of", "feedback_of")
"""By the second at which a member was kept."""

EXPIRE: Final = Script(
    LUA_TRANSITION
    + """
-- KEYS states, counts, held_out, then records. ARGV dropped state, then their prompts. Those that wait in the pool yet
-- are dropped; their places in its lists are passed over when their turn comes. Replies how many.
local num_dropped = 0
for i = 2, #ARGV do
  redis.call('UNLINK', KEYS[2 + i])
  redis.call('HDEL', KEYS[3], ARGV[i])
  if ledger_move(KEYS[1], KEYS[2], ARGV[i], 'pool', ARGV[1]) then num_dropped = num_dropped + 1 end
end
return num_dropped
"""
)


class Retention:
    """Any number of gateways may run it at once."""

    def __init__(
        self,
        redis: Redis,
        keys: RunKeys,
        patience: Patience,
        *,
        retention_seconds: int,
        sweep_seconds: float = SWEEP_SECONDS,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._patience = patience
        self._retention_seconds = retention_seconds
        self._sweep_seconds = sweep_seconds

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep now and then until `stop`."""
        while not stop.is_set():
            with suppress(Unavailable):
                # Patience has said so in health and log; the next sweep finds what this one left.
                await self.sweep()
            await set_within(stop, self._sweep_seconds)

    async def sweep(self) -> int:
        """Once. Returns how many prompts went."""
        cutoff = int((await self._command("TIME"))[0]) - self._retention_seconds
        prompts = await self._expire_prompts(cutoff)
        expired = frozenset(prompts)
        # What the indices by owner still name goes before the one by age, which says how old it is.
        async for name in self._names():
            index, _, owner = name.partition(":")
            if index == "prompts_of":
                await self._forget_prompts(owner, expired)
            elif index in _INDICES:
                await self._trim(self._keys.key(name), cutoff)
        for start in range(0, len(prompts), _PAGE):
            await self._command("ZREM", self._keys.prompts_by_age, *prompts[start : start + _PAGE])
        for index in (answers_by_age(self._keys), feedback_by_age(self._keys)):
            await self._trim(index, cutoff)
        if prompts:
            log.info("old prompts gone", extra={"prompts": len(prompts)})
        return len(prompts)

    async def _expire_prompts(self, cutoff: int) -> list[str]:
        prompts: list[str] = []
        by_age = self._keys.prompts_by_age
        while page := await self._command("ZRANGEBYSCORE", by_age, "-inf", f"({cutoff}", "LIMIT", len(prompts), _PAGE):
            names = [prompt.decode() for prompt in page]
            keys = [self._keys.ledger_states, self._keys.ledger_counts, held_out(self._keys)]
            keys += map(self._keys.prompt, names)
            arguments = [dropped_state(DropReason.EXPIRED), *names]
            num_dropped = await self._call(partial(EXPIRE.run, self._redis, keys, arguments))
            metrics.DROPPED.labels(Stage.POOL, DropReason.EXPIRED).inc(num_dropped)
            prompts += names
        return prompts

    async def _names(self) -> AsyncIterator[str]:
        """Of the indices by owner, after the run's prefix."""
        prefix, cursor = self._keys.key(""), 0
        while True:
            cursor, names = await self._command("SCAN", cursor, "MATCH", f"{prefix}*_of:*", "COUNT", 500)
            for name in names:
                yield name.decode(errors="replace").removeprefix(prefix)
            if int(cursor) == 0:
                return

    async def _forget_prompts(self, owner: str, expired: Set[str]) -> None:
        cursor: Any = 0
        while True:
            cursor, page = await self._command("ZSCAN", self._keys.prompts_of(owner), cursor, "COUNT", _PAGE)
            prompts = [prompt.decode() for prompt, _ in page]
            if prompts:
                seconds = await self._command("ZMSCORE", self._keys.prompts_by_age, *prompts)
                ages = zip(prompts, seconds, strict=True)
                old = [prompt for prompt, second in ages if second is None or prompt in expired]
                if old:
                    keys = forget_prompts_keys(self._keys, owner, old)
                    await self._call(partial(FORGET_PROMPTS.run, self._redis, keys, old))
            if int(cursor) == 0:
                return

    async def _trim(self, index: str, cutoff: int) -> None:
        await self._command("ZREMRANGEBYSCORE", index, "-inf", f"({cutoff}")

    async def _command(self, *arguments: str | bytes | int) -> Any:
        return await self._call(partial(command, self._redis, *arguments))

    async def _call(self, call: Callable[[], Awaitable[Any]]) -> Any:
        return await self._patience("let old data go", call, give_up_seconds=_GIVE_UP_SECONDS)
