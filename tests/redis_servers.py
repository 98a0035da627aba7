"""Real Redis servers for tests: the embedded one always, and a system server of another version where there is one."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from onlinerlhf.runtime.embedded_redis import redis_server_command


class RedisServer:
    """A server process of our own, which may be killed and started again on the same data."""

    def __init__(self, directory: Path, *, binary: str, port: int | None = None) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [binary, *redis_server_command(directory, self.port)[1:]]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start, and return when it answers."""
        with (self.directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([*self._command, *options], stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while not self._answers():
            assert time.monotonic() < deadline, "redis-server did not start"
            assert self._process.poll() is None, (self.directory / "redis.log").read_text()[-2000:]
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.5) as connection:
                connection.settimeout(0.5)
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _find_binaries() -> dict[str, str]:
    """Major.minor version -> binary: the embedded one, and the first system server of another version."""
    embedded = redis_server_command(Path(), 0)[0]
    found = {_version(embedded): embedded}
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        binary = shutil.which("redis-server", path=directory)
        if binary and (version := _version(binary)) not in found:
            found[version] = binary
    return found


def _version(binary: str) -> str:
    answer = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    return ".".join(answer.partition("v=")[2].split(".")[:2])


_BINARIES = _find_binaries()


def redis_binaries() -> list[ParameterSet]:
    """All servers here, the embedded one first; for parametrize."""
    return [pytest.param(binary, id=f"redis-{version}") for version, binary in _BINARIES.items()]
