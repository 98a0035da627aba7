"""`onlinerlhf data stats`: how much is held of what, read from the run's Redis. Counts and digests, no texts."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from redis.asyncio import Redis
from rich.console import Group, RenderableType
from rich.table import Table

from onlinerlhf.gateway.snapshot.material import batched, stored_prompts
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger, LedgerCounts
from onlinerlhf.runtime.redis import command

_WEIGHED_PER_STORE = 200
_TENANTS_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSize:
    """One kind of keys."""

    num_keys: int
    num_bytes: int
    """In Redis's memory; beyond the first few hundred keys, by their average."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataStats:
    """Of one run. Counts by anything but the ledger are of prompts still kept."""

    run_id: str
    ledger: LedgerCounts
    num_prompts: int
    by_verdict: Mapping[str, int]
    """admitted or held_out; refusals leave nothing but the gateways' metrics."""
    by_split: Mapping[str, int]
    by_use_case: Mapping[str, int]
    by_tenant: Mapping[str, int]
    """Keyed digest of the organisation, or of the user where there is none."""
    num_users: int
    num_erased: int
    num_withdrawn: int
    stores: Mapping[str, StoreSize]

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return asdict(self) | {"imbalance": self.ledger.imbalance}


async def read_stats(redis: Redis, keys: RunKeys) -> DataStats:
    """Looks at every key once. Raises RedisError or OSError."""
    use_cases: Counter[str] = Counter()
    tenants: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    owners: set[str] = set()
    async with batched(redis) as client:
        held_out = await command(client, "HGETALL", keys.key("held_out"))
        async for prompt in stored_prompts(client, keys):
            if prompt is None:
                continue
            use_cases[prompt.use_case.value] += 1
            tenants[prompt.tenant] += 1
            splits[held_out.get(prompt.prompt_id.encode(), b"train").decode()] += 1
            owners.add(prompt.owner)
        blocked = list((await command(client, "HGETALL", keys.blocked)).values())
        stores = await _stores(client, keys)
    return DataStats(
        run_id=keys.run,
        ledger=await Ledger(redis, keys).counts(),
        num_prompts=splits.total(),
        by_verdict={"admitted": splits["train"], "held_out": splits.total() - splits["train"]},
        by_split=dict(sorted(splits.items())),
        by_use_case=dict(use_cases.most_common()),
        by_tenant=dict(tenants.most_common()),
        num_users=len(owners),
        num_erased=blocked.count(b"erased"),
        num_withdrawn=len(blocked) - blocked.count(b"erased"),
        stores=stores,
    )


async def _stores(client: Redis, keys: RunKeys) -> dict[str, StoreSize]:
    """Keys by the first part of their name."""
    prefix = keys.key("").encode()
    names: dict[str, list[bytes]] = {}
    counts: Counter[str] = Counter()
    cursor = 0
    while True:
        cursor, page = await command(client, "SCAN", cursor, "MATCH", prefix + b"*", "COUNT", 1000)
        for name in page:
            store = name.removeprefix(prefix).partition(b":")[0].decode()
            counts[store] += 1
            if len(names.setdefault(store, [])) < _WEIGHED_PER_STORE:
                names[store].append(name)
        if int(cursor) == 0:
            break
    sizes = {}
    for store, weighed in sorted(names.items()):
        replies = await asyncio.gather(*(command(client, "MEMORY", "USAGE", name) for name in weighed))
        num_bytes = sum(reply or 0 for reply in replies)
        sizes[store] = StoreSize(num_keys=counts[store], num_bytes=round(num_bytes * counts[store] / len(weighed)))
    return sizes


def as_table(stats: DataStats) -> RenderableType:
    """For people."""
    table = Table(title=f"data of run {stats.run_id}", title_justify="left", show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    ledger = stats.ledger
    pending = sum(ledger.pending.values())
    table.add_row("prompts kept", f"{stats.num_prompts:,} of {stats.num_users:,} users")
    table.add_row("by verdict", _words(stats.by_verdict))
    table.add_row("by split", _words(stats.by_split))
    table.add_row("by use case", _words(stats.by_use_case))
    table.add_row("by tenant", _words(stats.by_tenant, num=_TENANTS_SHOWN, width=8))
    table.add_row("erased, withdrawn", f"{stats.num_erased:,} users, {stats.num_withdrawn:,} users")
    table.add_row(
        "ledger",
        f"{ledger.admitted:,} admitted = {ledger.trained:,} trained + {_sum(ledger.dropped)} + {pending:,} pending",
    )
    return Group(table, _stores_table(stats.stores))


def _stores_table(stores: Mapping[str, StoreSize]) -> Table:
    table = Table(box=None, header_style="bold")
    table.add_column("store")
    table.add_column("keys", justify="right")
    table.add_column("memory", justify="right")
    for name, size in stores.items():
        table.add_row(name, f"{size.num_keys:,}", f"{size.num_bytes / 1e3:,.0f} kB")
    return table


def _words(counts: Mapping[str, int], *, num: int | None = None, width: int | None = None) -> str:
    shown = [f"{name[:width]} {count:,}" for name, count in list(counts.items())[:num]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "") or "none"


def _sum(dropped: Mapping[str, int]) -> str:
    words = f" ({_words(dropped)})" if dropped else ""
    return f"{sum(dropped.values()):,} dropped{words}"
