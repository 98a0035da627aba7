"""Looks through every key of a run for anything of one owner, and takes it away where asked to.

It knows no store by heart. All that is kept of a person names the owner's digest in its key or its value, or one of the
owner's sample ids in a short field; so a store that is forgotten here, or written to by mistake, is found all the same.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from redis.asyncio import Redis

from onlinerlhf.gateway.rights.erasure_scripts import LOOK_THROUGH
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Argument, Patience, command

PAGE: Final = 500
"""Fields or members looked at in one script."""
ENTRIES_AT_ONCE: Final = 50
"""Of a stream: a scored sample can be some hundred kilobytes."""
KEYS_AT_ONCE: Final = 200
GIVE_UP_SECONDS: Final = 10.0
"""Without Redis for so long a call ends as unavailable; it is safe to repeat."""

_STORES: Final = {
    "stream": "streams",
    "attempts": "streams",
    "errors": "streams",
    "prompt": "records",
    "prompts_of": "records",
    "prompts_by_age": "records",
    "receipt": "receipts",
    "receipts_of": "receipts",
    "answer": "answers",
    "answers_of": "answers",
    "answers_by_age": "answers",
    "feedback_of": "feedback",
    "feedback_by_age": "feedback",
    "idempotency_of": "idempotency",
    "dedup_of": "dedup",
    "held_out": "records",
    "limit": "limits",
}
"""First part of a key's name -> what its store is called, where that is not its name."""


@dataclass(slots=True)
class Found:
    """What a walk has found."""

    num_keys: int = 0
    """Keys looked at."""
    by_key: Counter[str] = field(default_factory=Counter)
    """Name of a key, after the run's prefix -> what was found in it."""

    def by_store(self, *, indices: bool) -> dict[str, int]:
        """Store -> what was found; `indices`: whether places in an index count beside the records."""
        counts: Counter[str] = Counter()
        for name, num in self.by_key.items():
            if indices or not _is_index(name):
                counts[store_of(name)] += num
        return dict(sorted(counts.items()))


def _is_index(name: str) -> bool:
    return name == "pool:tenants" or name.partition(":")[0].endswith(("_of", "_by_age"))


def store_of(name: str) -> str:
    """Of a key's name after the run's prefix. Known words only: a name may hold anything."""
    if name.endswith(".dead"):
        return "dead_letters"
    if name == "pool:reuse":
        return "replay"
    first = name.partition(":")[0]
    return _STORES.get(first, first if first.isidentifier() and first.islower() and len(first) <= 20 else "other")


class Leftovers:
    """Of one run."""

    def __init__(self, redis: Redis, keys: RunKeys, patience: Patience) -> None:
        self._redis = redis
        self._keys = keys
        self._patience = patience
        self._prefix = keys.key("")
        # The tombstones; and the ledger's states, which say of no sample whose it was.
        self._spared = {keys.blocked, keys.ledger_states, keys.ledger_counts}
        self._tombstones = keys.key("erased", "")

    async def walk(self, owner: str, *, ids: str, remove: bool) -> Found:
        """Once through all keys. `ids`: a set of prompt and sample ids known to be the owner's; it may be missing."""
        found = Found()
        cursor: Any = 0
        while True:
            scan = partial(command, self._redis, "SCAN", cursor, "MATCH", f"{self._prefix}*", "COUNT", 500)
            cursor, names = await self._call(scan)
            looked_at = [name.decode(errors="surrogateescape") for name in names]
            looked_at = [name for name in looked_at if not self._is_spared(name)]
            found.num_keys += len(looked_at)
            for start in range(0, len(looked_at), KEYS_AT_ONCE):
                await self._look(owner, looked_at[start : start + KEYS_AT_ONCE], found, ids=ids, remove=remove)
            if int(cursor) == 0:
                return found

    async def _look(self, owner: str, names: Sequence[str], found: Found, *, ids: str, remove: bool) -> None:
        for at, num, cursor in await self._page(owner, names, "", ids=ids, remove=remove):
            name = names[at]
            # SCAN may show a key twice: what is found counts once.
            total = int(num)
            while cursor != b"0":
                rows = await self._page(owner, [name], cursor, ids=ids, remove=remove)
                _, num, cursor = rows[0] if rows else (0, 0, b"0")
                total += int(num)
            if total:
                place = name.removeprefix(self._prefix)
                found.by_key[place] = found.by_key[place] + total if remove else total

    async def _page(self, owner: str, names: Iterable[str], cursor: str | bytes, *, ids: str, remove: bool) -> Any:
        raw = [name.encode(errors="surrogateescape") for name in names]
        arguments: list[Argument] = [owner, int(remove), self._keys.group, PAGE, cursor, ENTRIES_AT_ONCE]
        return await self._call(partial(LOOK_THROUGH.run, self._redis, [ids, *raw], arguments))  # type: ignore[list-item]

    async def _call(self, call: Any) -> Any:
        return await self._patience("look for what is left of a user", call, give_up_seconds=GIVE_UP_SECONDS)

    def _is_spared(self, name: str) -> bool:
        return name in self._spared or name.startswith(self._tombstones)
