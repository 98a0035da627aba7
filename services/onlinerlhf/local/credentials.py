"""The keys of a platform on this machine: made by `onlinerlhf up`, in a file that only its owner can read."""

import hmac
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from onlinerlhf.core.errors import ConfigError, NotFound
from onlinerlhf.gateway.access.callers import KeyClass, Limits, Scope
from onlinerlhf.gateway.access.key_format import parse
from onlinerlhf.gateway.access.keys import KeyStore
from onlinerlhf.local import endpoints
from onlinerlhf.local.targets import Target, connected
from onlinerlhf.runtime.keys import RunKeys

FILE_NAME: Final = "credentials.json"
CLIENT_VARIABLE: Final = "ONLINERLHF_API_KEY"
ADMIN_VARIABLE: Final = "ONLINERLHF_ADMIN_KEY"
LOCAL_LIMITS: Final = Limits(requests_per_minute=1_000_000, tokens_per_minute=100_000_000, max_concurrent=10_000)
"""Of the client's key: on one's own machine the workers are the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Two keys. They are never logged."""

    client_key: str = field(repr=False)
    """Playground; may generate and give feedback."""
    admin_key: str = field(repr=False)
    """May erase, verify and export, and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Role:
    name: str
    key_class: KeyClass
    scopes: frozenset[Scope]
    limits: Limits | None = None


_CLIENT: Final = _Role(
    name="local",
    key_class=KeyClass.PLAYGROUND,
    scopes=frozenset({Scope.GENERATE, Scope.FEEDBACK}),
    limits=LOCAL_LIMITS,
)
_ADMIN: Final = _Role(name="local admin", key_class=KeyClass.PRODUCTION, scopes=frozenset({Scope.ADMIN}))


async def ensure(redis_url: str, run_id: str, run_dir: Path) -> Credentials:
    """The run's keys, known to its Redis: those of the file, where they are still good, or new ones."""

    async def job(redis: Redis, keys: RunKeys) -> Credentials:
        store = KeyStore(redis, keys)
        try:
            saved: Credentials | None = read(run_dir)
        except NotFound:
            saved = None
        return Credentials(
            client_key=await _ensure_key(store, _CLIENT, saved.client_key if saved else ""),
            admin_key=await _ensure_key(store, _ADMIN, saved.admin_key if saved else ""),
        )

    credentials = await connected(Target(run_id=run_id, redis_url=redis_url), job)
    _write(run_dir, credentials)
    return credentials


def read(run_dir: Path) -> Credentials:
    """What `ensure` wrote."""
    path = run_dir / FILE_NAME
    try:
        record = json.loads(path.read_text())
        return Credentials(client_key=record["client_key"], admin_key=record["admin_key"])
    except FileNotFoundError:
        raise NotFound(f"there is no {path}; `onlinerlhf up` writes it") from None
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} is damaged; delete it, and `onlinerlhf up` makes new keys") from None


def client_key(home: Path, run_dir: Path | None) -> str:
    """Of the environment, or of the platform that is up."""
    return os.environ.get(CLIENT_VARIABLE) or _of_platform(home, run_dir).client_key


def admin_key(home: Path, run_dir: Path | None) -> str:
    """Of the environment, or of the platform that is up."""
    return os.environ.get(ADMIN_VARIABLE) or _of_platform(home, run_dir).admin_key


def _of_platform(home: Path, run_dir: Path | None) -> Credentials:
    return read(Path(endpoints.find(home, run_dir).run_dir))


async def _ensure_key(store: KeyStore, role: _Role, saved: str) -> str:
    text = parse(saved)
    if text is not None and text.key_class is role.key_class:
        _, record = await store.look_up(text.key_id)
        if record is None:
            await store.register(text.text, name=role.name, organisation="", scopes=role.scopes, limits=role.limits)
            return text.text
        if hmac.compare_digest(record.digest, text.digest) and record.key.revoked_at_seconds is None:
            return text.text
    _, new = await store.create(role.name, role.key_class, "", role.scopes, role.limits)
    return new


def _write(run_dir: Path, credentials: Credentials) -> None:
    """Replace the file in one step."""
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / FILE_NAME
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"client_key": credentials.client_key, "admin_key": credentials.admin_key}, file, indent=2)
    temporary.replace(path)
