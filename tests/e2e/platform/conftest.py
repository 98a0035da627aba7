"""One platform for all tests of a module: vLLM takes half a minute to start."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.platform.real_platform import Platform
from onlinerlhf.learner.bootstrap import tiny_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models: sft and reward."""
    directory = tmp_path_factory.mktemp("home") / "models"
    tiny_models(directory, tie_word_embeddings=True, seed=0)
    return directory


@pytest.fixture(scope="module")
def platform(models: Path) -> Iterator[Platform]:
    """A platform that is ready. Whatever the tests do to it, nothing of it is left."""
    started = Platform(models.parent)
    try:
        started.wait_ready()
        yield started
    finally:
        if started.process.poll() is None:
            pids = started.pids()
            try:
                started.stop()
            finally:
                for pid in pids:
                    _kill(pid)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
