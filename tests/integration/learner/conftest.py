"""Real learner processes, to be started and killed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from onlinerlhf.runtime.ledger import Ledger


class Lives:
    """Starts and kills learners, one at a time."""

    def __init__(self, parent: subprocess.Popen[str]) -> None:
        self._parent = parent
        self._pid = 0

    def start(self, environment: dict[str, str]) -> None:
        """The learner before it is gone by the time this one begins."""
        assert self._parent.stdin is not None and self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(environment) + "\n")
        self._parent.stdin.flush()
        self._pid = int(self._parent.stdout.readline())

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)

    def drain(self) -> None:
        os.kill(self._pid, signal.SIGTERM)


@pytest.fixture(scope="module")
def lives() -> Iterator[Lives]:
    """A parent of learners, ended together with its last child."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("lives.py"))],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        yield Lives(parent)
        assert parent.stdin is not None
        parent.stdin.close()
        parent.wait(timeout=20)


async def trained(ledger: Ledger, at_least: int, *, seconds: float = 60) -> None:
    """Wait until so many samples are."""
    async with asyncio.timeout(seconds):
        while (await ledger.counts()).trained < at_least:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
