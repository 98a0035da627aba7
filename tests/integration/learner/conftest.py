"""Real learner processes, to be started and killed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification

from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.ledger import Ledger
from unit.learner.tiny import tiny_config, tiny_policy

PROCESS_ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1"}


class Lives:
    """Starts and kills processes, one at a time."""

    def __init__(self, parent: subprocess.Popen[str]) -> None:
        self._parent = parent
        self._pid = 0

    def start(self, message: dict[str, Any]) -> int:
        """The life before it is gone by the time this one begins. Returns its process id."""
        assert self._parent.stdin is not None and self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(message) + "\n")
        self._parent.stdin.flush()
        self._pid = int(self._parent.stdout.readline())
        return self._pid

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)

    def drain(self) -> None:
        os.kill(self._pid, signal.SIGTERM)


@contextmanager
def lives_of(script: str) -> Iterator[Lives]:
    """A parent that runs a script beside this file, ended together with its last child."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name(script))],
        env=PROCESS_ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        yield Lives(parent)
        assert parent.stdin is not None
        parent.stdin.close()
        parent.wait(timeout=20)


@pytest.fixture(scope="module")
def lives() -> Iterator[Lives]:
    """Of learners: a message is the environment variables of one."""
    with lives_of("lives.py") as found:
        yield found


@pytest.fixture(scope="module")
def trainings() -> Iterator[Lives]:
    """Of offline PPO trainings."""
    with lives_of("offline_lives.py") as found:
        yield found


def tiny_directories(home: Path) -> dict[str, Any]:
    """Models of random weights, as settings of a learner that works beside them."""
    tiny_policy().save_pretrained(home / "policy")
    AutoModelForSequenceClassification.from_config(tiny_config()).save_pretrained(home / "reward")
    return {"policy_dir": home / "policy", "reward_dir": home / "reward", "output_dir": home / "out"}


def learner_environment(run_config: RunConfig, run_id: str, settings: dict[str, Any]) -> dict[str, str]:
    """Settings as a learner process reads them."""
    return {
        "ONLINERLHF_RUN__ID": run_id,
        "ONLINERLHF_RUN__REDIS_URL": run_config.redis_url.get_secret_value(),
        **{f"ONLINERLHF_LEARNER__{name.upper()}": str(setting) for name, setting in settings.items()},
    }


async def trained(ledger: Ledger, at_least: int, *, seconds: float = 60) -> None:
    """Wait until so many samples are."""
    async with asyncio.timeout(seconds):
        while (await ledger.counts()).trained < at_least:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
