"""The rights of a data subject: to be forgotten, to have that checked, and to take consent back.

erase     tombstone -> whose samples -> streams -> pool -> ledger -> everything else that names the owner -> receipt
verify    every key of the run, anew
withdraw  consent up to now does not count -> streams -> pool

The tombstone comes first: from then on every reader drops what it meets of the owner, so that the rest only has to
catch up. Each step may be repeated after a crash anywhere; a second call counts what was left.
"""

import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

from redis.asyncio import Redis

from onlinerlhf.core.samples import Stage
from onlinerlhf.gateway.access.identity import HashKey
from onlinerlhf.gateway.admission.pool import dedup_of
from onlinerlhf.gateway.rights import erasure_scripts
from onlinerlhf.gateway.rights.leftovers import ENTRIES_AT_ONCE, GIVE_UP_SECONDS, PAGE, Found, Leftovers
from onlinerlhf.gateway.rights.owned import owned_stores
from onlinerlhf.runtime import metrics, rights
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Argument, Patience, command
from onlinerlhf.runtime.streams import RETURNED, STREAMS

_IDS_SECONDS: Final = 86_400
"""How long an erasure that was broken off can be taken up with all it knew."""
_MAX_WALKS: Final = 3
_RECEIPTS_KEPT: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureReceipt:
    """What an erasure did."""

    receipt_id: str
    erased_at_seconds: float
    """Of the first tombstone."""
    num_removed: Mapping[str, int]
    """By store."""
    num_samples_dropped: int
    policy_versions: tuple[int, ...]
    """Whose step used a sample of the user's; every later version descends from them."""
    num_samples_in_training: int
    """Held by a learner at that moment. Where it uses them, a verification names the versions later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What is left of an erased user."""

    num_left: Mapping[str, int]
    """By store; empty: nothing."""
    num_keys_scanned: int
    policy_versions: tuple[int, ...]


@dataclass(slots=True)
class _Swept:
    """What one erasure or withdrawal has taken off the pipeline so far."""

    removed: Counter[str]
    num_dropped: int = 0
    num_in_training: int = 0


class Erasure:
    """Of one run. Calls wait for Redis some seconds at a time and then raise Unavailable: repeat them."""

    def __init__(self, redis: Redis, keys: RunKeys, hash_key: HashKey, patience: Patience) -> None:
        self._redis = redis
        self._keys = keys
        self._hash_key = hash_key
        self._patience = patience
        self._leftovers = Leftovers(redis, keys, patience)

    async def erase(self, organisation: str, user_id: str) -> ErasureReceipt:
        """Everything held of a user, and all that is under way."""
        owner = await self._owner(organisation, user_id)
        erased_at_seconds = await self._tombstone(owner)
        ids = self._keys.key("erased", owner, "ids")
        await self._gather(owner, ids)
        swept = await self._sweep(owner)
        await self._forget_prompts(owner, ids, swept)
        await self._forget_owner(owner, swept)
        await self._remove_the_rest(owner, ids, swept)
        receipt = ErasureReceipt(
            receipt_id=uuid.uuid4().hex,
            erased_at_seconds=erased_at_seconds,
            num_removed={store: num for store, num in sorted(swept.removed.items()) if num},
            num_samples_dropped=swept.num_dropped,
            policy_versions=await self._versions(owner),
            num_samples_in_training=swept.num_in_training,
        )
        await self._keep(owner, receipt)
        await self._command("DEL", ids)
        return receipt

    async def verify(self, organisation: str, user_id: str) -> Verification:
        """Look at every key of the run anew. Changes nothing."""
        owner = await self._owner(organisation, user_id)
        # Beside an erasure that is under way, not in its place.
        ids = self._keys.key("erased", owner, "ids", uuid.uuid4().hex)
        try:
            await self._gather(owner, ids)
            found = await self._leftovers.walk(owner, ids=ids, remove=False)
        finally:
            await self._command("DEL", ids)
        return Verification(
            num_left=found.by_store(indices=True),
            num_keys_scanned=found.num_keys,
            policy_versions=await self._versions(owner),
        )

    async def withdraw(self, owner: str) -> int:
        """Consent that was shown up to this second does not count any more. Returns how many samples were dropped.

        What a learner holds is not among them: it asks before its next step.
        """
        await self._call(
            "withdraw consent", partial(erasure_scripts.WITHDRAWN.run, self._redis, [self._keys.blocked], [owner])
        )
        return (await self._sweep(owner)).num_dropped

    async def receipts(self, organisation: str, user_id: str) -> list[ErasureReceipt]:
        """Of earlier calls, oldest first."""
        owner = await self._owner(organisation, user_id)
        rows = await self._command("LRANGE", self._receipts(owner), 0, -1)
        receipts = [json.loads(row) for row in rows]
        return [ErasureReceipt(**{**row, "policy_versions": tuple(row["policy_versions"])}) for row in receipts]

    async def _owner(self, organisation: str, user_id: str) -> str:
        digests = await self._call("read the run's hash key", self._hash_key.digests)
        return str(digests.owner(organisation, user_id))

    async def _tombstone(self, owner: str) -> float:
        keys = [self._keys.blocked, self._keys.key("erased", owner, "at")]
        second, microsecond = await self._call(
            "set a tombstone", partial(erasure_scripts.ERASED.run, self._redis, keys, [owner])
        )
        return int(second) + int(microsecond) / 1e6

    async def _gather(self, owner: str, ids: str) -> None:
        """Which prompts and samples are the owner's: by the ledger, the cap's index, and those of other stores."""
        cursor: Any = 0
        while True:
            keys, arguments = [self._keys.ledger_owners, ids], [owner, cursor, PAGE, _IDS_SECONDS]
            cursor = await self._call(
                "gather samples", partial(erasure_scripts.GATHER.run, self._redis, keys, arguments)
            )
            if int(cursor) == 0:
                break
        indices = [store.index for store in owned_stores(self._keys, owner)]
        for index in (self._keys.prompts_of(owner), *indices):
            async for members in self._pages("ZSCAN", index):
                await self._note(ids, [member for member, _ in members])
        async for digests in self._pages("HSCAN", dedup_of(self._keys, owner)):
            await self._note(ids, list(digests))

    async def _note(self, ids: str, members: Sequence[bytes]) -> None:
        """Ids are ASCII; anything else was never one of ours."""
        ours = [member for member in members if member.isascii()]
        if ours:
            await self._command("SADD", ids, *ours)
            await self._command("EXPIRE", ids, _IDS_SECONDS)

    async def _pages(self, name: str, key: str) -> AsyncIterator[Any]:
        cursor: Any = 0
        while True:
            cursor, page = await self._command(name, key, cursor, "COUNT", PAGE)
            yield page
            if int(cursor) == 0:
                return

    async def _forget_prompts(self, owner: str, ids: str, swept: _Swept) -> None:
        """Records, held-out ones too, and the digests by which others would be found to repeat them."""
        async for page in self._pages("SSCAN", ids):
            for start in range(0, len(page), PAGE):
                prompts = [prompt.decode() for prompt in page[start : start + PAGE]]
                num_digests, num_records = await self._forget_some(owner, prompts)
                swept.removed["dedup"] += num_digests
                swept.removed["records"] += num_records

    async def _forget_some(self, owner: str, prompts: Sequence[str]) -> tuple[int, int]:
        keys = erasure_scripts.forget_prompts_keys(self._keys, owner, prompts)
        forget = partial(erasure_scripts.FORGET_PROMPTS.run, self._redis, keys, prompts)
        num_digests, num_records = await self._call("forget prompts", forget)
        return num_digests, num_records

    async def _sweep(self, owner: str) -> _Swept:
        """Off the streams and out of the pool, in the order in which samples move on."""
        swept = _Swept(removed=Counter())
        tenants = await self._command("ZRANGE", self._keys.pool_tenants, 0, -1)
        for tenant in {owner, *(tenant.decode() for tenant in tenants)}:
            await self._sweep_list(owner, self._keys.pool_new(tenant), "pool", swept)
        await self._sweep_list(owner, self._keys.pool_reuse, "replay", swept)
        for stage in STREAMS:
            await self._sweep_stream(owner, stage, swept)
        return swept

    async def _sweep_stream(self, owner: str, stage: Stage, swept: _Swept) -> None:
        keys = rights.sweep_keys(self._keys, stage)
        cursor, reason = "-", await self._reason(owner)
        while cursor:
            arguments: list[Argument] = [self._keys.group, stage, owner, RETURNED, cursor, ENTRIES_AT_ONCE]
            sweep = partial(rights.SWEEP.run, self._redis, keys, arguments)
            raw, num_removed, num_dropped, num_held = await self._call(f"sweep [{stage}]", sweep)
            cursor = raw.decode()
            swept.removed["streams"] += num_removed
            swept.num_dropped += num_dropped
            swept.num_in_training += num_held
            metrics.DROPPED.labels(stage, reason).inc(num_dropped)

    async def _sweep_list(self, owner: str, name: str, store: str, swept: _Swept) -> None:
        """One list of the pool. What was never fed leaves no trace; of what was, the record goes."""
        keys = [name, self._keys.ledger_states, self._keys.ledger_counts, self._keys.ledger_owners, self._keys.blocked]
        offset = 0
        while offset >= 0:
            sweep = partial(erasure_scripts.SWEEP_LIST.run, self._redis, keys, [owner, offset, PAGE])
            offset, removed, num_dropped, reason = await self._call("sweep the pool", sweep)
            prompts = [sample.decode().partition(".")[0] for sample in removed]
            if prompts and store == "pool":
                num_digests, num_records = await self._forget_some(owner, prompts)
                swept.removed["dedup"] += num_digests
                swept.removed["records"] += num_records
                metrics.DROPPED.labels(Stage.POOL, reason.decode()).inc(num_dropped)
            elif prompts:
                swept.removed["records"] += await self._command("UNLINK", *map(self._keys.prompt, prompts))
            swept.removed[store] += len(removed)
            swept.num_dropped += num_dropped

    async def _forget_owner(self, owner: str, swept: _Swept) -> None:
        """Whose the samples were, once the versions that learned from them are noted."""
        keys = [
            self._keys.ledger_owners,
            self._keys.ledger_states,
            self._keys.ledger_counts,
            self._keys.erased_versions(owner),
        ]
        cursor: Any = 0
        while True:
            forget = partial(erasure_scripts.FORGET.run, self._redis, keys, [owner, cursor, PAGE])
            cursor, num_forgotten, num_dropped = await self._call("forget owners", forget)
            swept.removed["ledger"] += num_forgotten
            swept.num_dropped += num_dropped
            if int(cursor) == 0:
                return

    async def _remove_the_rest(self, owner: str, ids: str, swept: _Swept) -> None:
        """Again until nothing is found: calls that began before the tombstone may still have been writing."""
        for _ in range(_MAX_WALKS):
            found: Found = await self._leftovers.walk(owner, ids=ids, remove=True)
            swept.removed.update(found.by_store(indices=False))
            if not found.by_key:
                return

    async def _versions(self, owner: str) -> tuple[int, ...]:
        return tuple(sorted(map(int, await self._command("SMEMBERS", self._keys.erased_versions(owner)))))

    async def _keep(self, owner: str, receipt: ErasureReceipt) -> None:
        await self._command("RPUSH", self._receipts(owner), json.dumps(asdict(receipt)))
        await self._command("LTRIM", self._receipts(owner), -_RECEIPTS_KEPT, -1)

    async def _reason(self, owner: str) -> str:
        """What the owner is blocked for, as metrics count it."""
        word = await self._command("HGET", self._keys.blocked, owner)
        return (word or b"erased").decode().partition(":")[0]

    def _receipts(self, owner: str) -> str:
        return self._keys.key("erased", owner, "receipts")

    async def _command(self, *arguments: str | bytes | int) -> Any:
        return await self._call("erase", partial(command, self._redis, *arguments))

    async def _call(self, what: str, call: Callable[[], Awaitable[Any]]) -> Any:
        return await self._patience(what, call, give_up_seconds=GIVE_UP_SECONDS)
