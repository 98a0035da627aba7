"""A platform that cannot start says why in one line, exits non-zero, and leaves nothing running."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    before = set(psutil.Process().children(recursive=True))
    yield
    assert set(psutil.Process().children(recursive=True)) <= before


def up(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "onlinerlhf", "up", "--home", str(home), "--run", "broken", "--plain", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def error_lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    return done.stderr.strip().splitlines()


def test_a_directory_without_a_model_is_named(models: Path) -> None:
    lines = error_lines(up(models.parent, "--policy", str(models / "nowhere")))
    assert len(lines) == 1
    assert lines[0].startswith(f"Error: policy directory {models / 'nowhere'} has no config.json")


def test_a_model_that_cannot_be_loaded_is_named(models: Path, tmp_path: Path) -> None:
    broken = tmp_path / "reward"
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "no-such-architecture"}')
    (broken / "model.safetensors").write_bytes(b"")
    lines = error_lines(up(models.parent, "--reward", str(broken)))
    assert len(lines) == 1
    assert lines[0].startswith("Error: learner does not start: onlinerlhf learner: cannot load the models (")
    assert str(broken) in lines[0]


def test_an_unknown_setting_is_named(models: Path) -> None:
    lines = error_lines(up(models.parent, "--set", "learner.clip_rang=0.3"))
    assert len(lines) == 1
    assert lines[0].startswith("Error: learner does not start: onlinerlhf learner: [learner] clip_rang: unknown key")


def test_a_taken_port_is_named(models: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        lines = error_lines(up(models.parent, "--gateway-port", str(port)))
    assert len(lines) == 1
    assert f"gateway does not start: onlinerlhf gateway: cannot listen on 127.0.0.1:{port}" in lines[0]
