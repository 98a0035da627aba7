"""Where a running platform can be found: `endpoints.json` in its run directory."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from onlinerlhf.core.errors import NotFound

FILE_NAME = "endpoints.json"
WORKER_PREFIX = "rollout-"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEntry:
    """One supervised process."""

    name: str
    """redis, learner, reward, gateway, rollout-0, rollout-1, …"""
    address: str
    """host:port on loopback; empty for a Redis that somebody else runs."""
    pid: int | None
    restarts: int
    state: str
    reason: str = ""
    """What it waits for, or why it was given up, as its supervisor saw it at the last change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """What status, doctor and submit need to know."""

    run_id: str
    run_dir: str
    redis_url: str
    supervisor_pid: int
    http: str
    """host:port of the OpenAI-compatible front."""
    processes: tuple[ProcessEntry, ...]
    desired_workers: int = 0
    """Rollout workers that there should be."""
    max_workers: int = 0
    wish: str = ""
    """Which wish `desired_workers` is from."""

    def address(self, name: str) -> str:
        """Address of one process."""
        for process in self.processes:
            if process.name == name:
                return process.address
        raise NotFound(f"run {self.run_id} has no process named {name}")

    @property
    def gateway(self) -> str:
        """What clients connect to."""
        return self.address("gateway")

    @property
    def rooms(self) -> tuple[ProcessEntry, ...]:
        """Every process that speaks gRPC."""
        return tuple(process for process in self.processes if process.name != "redis")

    @property
    def workers(self) -> tuple[ProcessEntry, ...]:
        """The rollout workers that there are, those that drain and those that do not start among them."""
        return tuple(process for process in self.processes if process.name.startswith(WORKER_PREFIX))

    @property
    def is_running(self) -> bool:
        """Whether the supervisor that wrote this is alive."""
        try:
            os.kill(self.supervisor_pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def write(self) -> None:
        """Replace the file in one step; it may hold a Redis password, so only its owner reads it."""
        path = Path(self.run_dir) / FILE_NAME
        temporary = path.with_suffix(".tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(self), file, indent=2)
        temporary.replace(path)


def read(run_dir: Path) -> Endpoints:
    """Endpoints of the run in this directory."""
    path = run_dir / FILE_NAME
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise NotFound(f"no platform was started in {run_dir}; `onlinerlhf up` starts one") from None
    processes = tuple(ProcessEntry(**process) for process in record.pop("processes"))
    return Endpoints(**record, processes=processes)


def find(home: Path, run_dir: Path | None = None) -> Endpoints:
    """Endpoints of the given run, or of the newest run that is up under `home`/runs."""
    if run_dir is not None:
        found = read(run_dir)
        if not found.is_running:
            raise NotFound(f"run {found.run_id} is not running any more; `onlinerlhf up` starts one")
        return found
    files = sorted((home / "runs").glob(f"*/{FILE_NAME}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files:
        if (each := read(path.parent)).is_running:
            return each
    raise NotFound(
        f"no platform is up under {home / 'runs'} (--home picks another directory); `onlinerlhf up` starts one"
    )
