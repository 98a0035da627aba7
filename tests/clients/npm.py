"""npm in clients/typescript, with the Node of the virtual environment."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "clients" / "typescript"
BIN = Path(sys.executable).parent
INSTALL_SECONDS = 240.0


class NpmFailed(Exception):
    """A command failed or did not end in time; says which, and the end of what it printed."""


def npm(*arguments: str, seconds: float, environment: Mapping[str, str] | None = None) -> str:
    """Run `npm arguments…`; what it printed. Nothing of it is left running."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        [str(BIN / "npm"), *arguments],
        cwd=PACKAGE,
        env={**os.environ, **(environment or {}), "PATH": path, "PYTHON": sys.executable},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    what = f"npm {' '.join(arguments)}"
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise NpmFailed(f"{what} did not end within {seconds:.0f} s:\n{output[-4_000:]}") from None
    if process.returncode != 0:
        raise NpmFailed(f"{what} ended with {process.returncode}:\n{output[-8_000:]}")
    return output


def install() -> None:
    """What package-lock.json names, unless it is there already."""
    wanted = hashlib.sha256((PACKAGE / "package-lock.json").read_bytes()).hexdigest()
    installed = PACKAGE / "node_modules" / ".installed"
    if installed.is_file() and installed.read_text() == wanted:
        return
    npm("ci", seconds=INSTALL_SECONDS)
    installed.write_text(wanted)
