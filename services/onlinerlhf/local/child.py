"""A supervised process as values: what to run, how often to try again, where it is in its life, what it said last."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

Probe = Callable[[], Awaitable[str]]
"""Answers what a child still waits for; empty when it is ready."""

_TAIL_BYTES = 16_384
_STARTUP_ERROR = re.compile(r"onlinerlhf \w+: ")


class ChildState(StrEnum):
    """Where a child is in its life."""

    STARTING = "starting"
    READY = "ready"
    BACKING_OFF = "backing off"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """A process to keep running."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log_path: Path
    probe: Probe
    drain_seconds: float = 30.0
    """From SIGTERM to SIGKILL."""
    is_essential: bool = True
    """The platform ends when it cannot be started. Otherwise it is left FAILED, and the rest goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """How fast a child is restarted, and when to give up."""

    first_delay_seconds: float = 0.5
    max_delay_seconds: float = 10.0
    max_failed_starts: int = 2
    """Exits in a row without ever having been ready after which the platform ends: a setting is wrong."""
    max_failed_restarts: int = 8
    """The same for a child that was ready once."""
    stable_seconds: float = 30.0
    """Ready for this long, a child's earlier failures are forgotten."""
    probe_seconds: float = 0.25

    def delay_seconds(self, failures: int) -> float:
        """Doubles with every failure in a row, up to the maximum."""
        return float(min(self.first_delay_seconds * 2 ** (failures - 1), self.max_delay_seconds))


@dataclass(slots=True, kw_only=True)
class Child:
    """A supervised process; the supervisor alone writes it."""

    spec: ChildSpec
    state: ChildState = ChildState.STARTING
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    failures: int = 0
    """Exits in a row without a stable time between them."""
    was_ready: bool = False
    ready_since: float = 0.0
    waiting_for: str = "its process"
    log_offset: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    spawned: asyncio.Event = field(default_factory=asyncio.Event)
    """Clear while a process is about to be there: to be cancelled then could leave it behind."""

    def __post_init__(self) -> None:
        self.spawned.set()

    @property
    def is_leaving(self) -> bool:
        """Told to stop, or gone."""
        return self.state in (ChildState.DRAINING, ChildState.STOPPED)

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        running = self.process is not None and self.process.returncode is None
        return self.process.pid if running and self.process is not None else None


def last_line(path: Path, *, offset: int = 0) -> str:
    """Why a process ended, by what it wrote since `offset`: its start-up error, or else its last line."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(offset, size - _TAIL_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if is_startup_error(line)]
    last = (said or lines or ["it wrote nothing"])[-1]
    try:
        record = json.loads(last)
    except ValueError:
        return last
    return str(record.get("event", last)) if isinstance(record, dict) else last


def is_startup_error(line: str) -> bool:
    """Whether a room says that it cannot start: trying again would not help."""
    return _STARTUP_ERROR.match(line) is not None
