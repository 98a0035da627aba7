"""`onlinerlhf data …`: what a platform holds of people's data, snapshots of it, and the rights of those it is from."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.console import Console
from rich.progress import Progress

from onlinerlhf.core.errors import ConfigError, Unavailable
from onlinerlhf.gateway.config import GatewayConfig
from onlinerlhf.gateway.snapshot.build import build, check_absent
from onlinerlhf.gateway.snapshot.manifest import RunRules
from onlinerlhf.gateway.snapshot.material import Material, num_records, read_material
from onlinerlhf.gateway.snapshot.rules import SnapshotRules
from onlinerlhf.local import data_stats, endpoints, targets
from onlinerlhf.runtime import config as configs
from onlinerlhf.runtime import redis
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.keys import RunKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Which run, and where its Redis is."""

    run: RunConfig
    config_path: Path | None
    """Settings of its gateways, where they are at hand."""


def find_source(home: Path, run_dir: Path | None, *, redis_url: str | None, run: str | None) -> Source:
    """Of a given Redis, or of the platform that is up here."""
    target = targets.find(home, run_dir, redis_url=redis_url, run=run)
    try:
        run_config = RunConfig(id=target.run_id, redis_url=SecretStr(target.redis_url))
    except ValidationError:
        raise ConfigError(f"a run's name is 1 to 64 of A-Z a-z 0-9 _ . -, not {target.run_id!r}") from None
    path = None if redis_url is not None else Path(endpoints.find(home, run_dir).run_dir) / "platform.toml"
    return Source(run=run_config, config_path=path if path is not None and path.is_file() else None)


def show_stats(source: Source, *, json_output: bool) -> None:
    """Print them."""
    stats = asyncio.run(_stats(source))
    if json_output:
        print(json.dumps(stats.as_json(), indent=2))
    else:
        Console().print(data_stats.as_table(stats))


def export(source: Source, out: Path, *, rules: SnapshotRules) -> None:
    """Write a snapshot and say what is in it."""
    check_absent(out)
    run_rules = read_run_rules(source.config_path)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        material = asyncio.run(_material(source, progress))
        screening = progress.add_task("comparing prompts", total=len(material.prompts))
        record = build(
            material,
            out,
            run=source.run.id,
            rules=rules,
            run_rules=run_rules,
            advance=lambda num: progress.advance(screening, num),
        )
    Console().print(f"{out}: {_summary(record)}", highlight=False, soft_wrap=True)


def read_run_rules(path: Path | None) -> RunRules:
    """What the gateways' settings say; nothing where they are not at hand."""
    if path is None:
        return RunRules()
    _, config = configs.load("gateway", GatewayConfig, path=path)
    index = config.decontamination_file
    return RunRules(
        valid_share=config.valid_share,
        test_share=config.test_share,
        decontamination_sha256=None if index is None else _sha256(index),
    )


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"cannot read the decontamination file {path}: {error.strerror}") from None


def _summary(record: dict[str, Any]) -> str:
    counts, dropped = record["counts"], record["dropped"]
    left_out = sum(num for reasons in dropped.values() for num in reasons.values())
    num_compared = sum(each["rows"] for name, each in record["files"].items() if name.startswith("comparisons"))
    kept = (
        f"{counts['prompts']:,} prompts of {counts['users']:,} users",
        f"{counts['answers']:,} answers",
        f"{counts['feedback']:,} judgements",
        f"{num_compared:,} comparisons",
    )
    return f"{', '.join(kept)}; {left_out:,} records left out by rule, as manifest.json says"


async def _stats(source: Source) -> data_stats.DataStats:
    async with _client(source) as client:
        return await data_stats.read_stats(client, RunKeys(source.run.id))


async def _material(source: Source, progress: Progress) -> Material:
    async with _client(source) as client:
        keys = RunKeys(source.run.id)
        reading = progress.add_task("reading", total=await num_records(client, keys))
        return await read_material(client, keys, lambda num: progress.advance(reading, num))


@asynccontextmanager
async def _client(source: Source) -> AsyncIterator[Redis]:
    client = redis.connect(source.run)
    try:
        yield client
    except (RedisError, OSError) as error:
        reason = redis.away_reason(error)
        if reason is None:
            raise
        raise Unavailable(f"run {source.run.id}: {reason}") from None
    finally:
        await client.aclose()
