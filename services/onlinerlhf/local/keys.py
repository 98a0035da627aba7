"""`onlinerlhf keys` and `onlinerlhf quota`: what they do, and how it looks."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final

from redis.asyncio import Redis

from onlinerlhf.gateway.access.callers import ApiKey, KeyClass, Limits, Scope
from onlinerlhf.gateway.access.keys import KeyStore
from onlinerlhf.gateway.access.quotas import Quota, Quotas
from onlinerlhf.local.targets import Target, ask
from onlinerlhf.runtime.keys import RunKeys

_LIMIT_WORDS: Final = {
    "requests_per_minute": ("REQUESTS A MINUTE", "requests/min"),
    "tokens_per_minute": ("TOKENS A MINUTE", "tokens/min"),
    "requests_per_day": ("REQUESTS A DAY", "requests/day"),
    "tokens_per_day": ("TOKENS A DAY", "tokens/day"),
    "max_concurrent": ("ANSWERS AT A TIME", "at a time"),
}
"""How each of Limits is shown: above a column, and after its number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """What to create."""

    name: str
    key_class: KeyClass
    organisation: str
    scopes: frozenset[Scope]
    limits: Limits | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A quota and whose it is."""

    name: str
    quota: Quota


def create(target: Target, new: NewKey, *, json_output: bool) -> None:
    """The key alone goes to standard output, so that a script can take it from there."""

    async def job(redis: Redis, keys: RunKeys) -> tuple[ApiKey, str]:
        return await KeyStore(redis, keys).create(new.name, new.key_class, new.organisation, new.scopes, new.limits)

    key, text = ask(target, job)
    if json_output:
        print(json.dumps({**as_record(key), "key": text}, indent=2))
    else:
        print(text)
    print(f"key {key.key_id} of run {target.run_id}; it is shown this once and never again", file=sys.stderr)


def show_keys(target: Target, *, json_output: bool) -> None:
    """All of them, without anything secret."""

    async def job(redis: Redis, keys: RunKeys) -> tuple[tuple[ApiKey, ...], dict[str, float]]:
        store = KeyStore(redis, keys)
        return await store.list(), await store.last_used()

    found, used = ask(target, job)
    if json_output:
        print(json.dumps([{**as_record(key), "last_used_at_seconds": used.get(key.key_id)} for key in found], indent=2))
    elif not found:
        print(f"run {target.run_id} has no keys; `onlinerlhf keys create` makes one")
    else:
        header = ("KEY ID", "NAME", "CLASS", "ORGANISATION", "SCOPES", "LIMITS", "CREATED", "LAST USED", "REVOKED")
        print_table(header, (_key_row(key, used.get(key.key_id)) for key in found))


def revoke(target: Target, key_id: str) -> None:
    """From now on."""

    async def job(redis: Redis, keys: RunKeys) -> ApiKey:
        return await KeyStore(redis, keys).revoke(key_id)

    key = ask(target, job)
    print(
        f"key {key.key_id} ({key.name}) is revoked as of {_when(key.revoked_at_seconds)}; every gateway follows in 5 s"
    )


def show_quota(
    target: Target, *, key_id: str | None, user_id: str | None, organisation: str | None, json_output: bool
) -> None:
    """Of one key, of a user and an organisation, or of every key in force."""

    async def job(redis: Redis, keys: RunKeys) -> list[Row]:
        store, quotas = KeyStore(redis, keys), Quotas(redis, keys, hash_key=target.hash_key)
        if user_id is not None or organisation is not None:
            return await _rows_of_people(quotas, user_id, organisation)
        found = [await store.get(key_id)] if key_id is not None else await store.list()
        live = [key for key in found if key.revoked_at_seconds is None or key_id is not None]
        return [Row(name=f"{key.key_id} {key.name}", quota=await quotas.of_key(key)) for key in live]

    rows = ask(target, job)
    if json_output:
        print(
            json.dumps(
                [{"name": row.name, **asdict(row.quota), "left": asdict(row.quota.left)} for row in rows], indent=2
            )
        )
    elif not rows:
        print(f"run {target.run_id} has no keys; `onlinerlhf keys create` makes one")
    else:
        header = ("WHOSE", "", *(title for title, _ in _LIMIT_WORDS.values()))
        print_table(header, (_quota_row(row) for row in rows))


def set_quota(target: Target, key_id: str, given: Limits, *, class_defaults: bool) -> None:
    """Change the numbers that were given; the others stay, or go back to the class's."""

    async def job(redis: Redis, keys: RunKeys) -> ApiKey:
        store = KeyStore(redis, keys)
        before = Limits() if class_defaults else (await store.get(key_id)).limits or Limits()
        numbers = {**asdict(before), **{name: number for name, number in asdict(given).items() if number is not None}}
        limits = Limits(**numbers)
        return await store.set_limits(key_id, None if limits == Limits() else limits)

    key = ask(target, job)
    print(f"key {key.key_id} ({key.name}): {_limits(key.limits)}; every gateway follows in 5 s")


def as_record(key: ApiKey) -> dict[str, object]:
    """For programs."""
    return {**asdict(key), "scopes": sorted(key.scopes)}


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as they must be."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


async def _rows_of_people(quotas: Quotas, user_id: str | None, organisation: str | None) -> list[Row]:
    rows = []
    if user_id is not None:
        rows.append(Row(name=user_id, quota=await quotas.of_user(organisation or "", user_id)))
    if organisation is not None:
        rows.append(Row(name=organisation, quota=await quotas.of_organisation(organisation)))
    return rows


def _key_row(key: ApiKey, used_at_seconds: float | None) -> tuple[str, ...]:
    return (
        key.key_id,
        key.name,
        key.key_class,
        key.organisation or "-",
        ",".join(sorted(key.scopes)),
        _limits(key.limits),
        _when(key.created_at_seconds),
        _when(used_at_seconds),
        _when(key.revoked_at_seconds),
    )


def _quota_row(row: Row) -> tuple[str, ...]:
    quota = row.quota
    used = {
        "requests_per_minute": quota.requests_used,
        "tokens_per_minute": quota.tokens_used,
        "max_concurrent": quota.num_concurrent,
        "requests_per_day": quota.daily_requests_used,
        "tokens_per_day": quota.daily_tokens_used,
    }
    return (str(quota.dimension), row.name, *(_use(quota, name, used[name]) for name in _LIMIT_WORDS))


def _use(quota: Quota, name: str, used: int) -> str:
    limit, left = getattr(quota.limits, name), getattr(quota.left, name)
    # What has no limit is not counted, but for what is under way.
    if limit is None:
        return f"{used:,} now, no limit" if name == "max_concurrent" else "no limit"
    return f"{used:,} of {limit:,} used, {left:,} left"


def _limits(limits: Limits | None) -> str:
    if limits is None:
        return "its class's"
    words = ((getattr(limits, name), word) for name, (_, word) in _LIMIT_WORDS.items())
    return ", ".join(f"{number:,} {word}" for number, word in words if number is not None)


def _when(seconds: float | None) -> str:
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
