"""`steps.jsonl`: one JSON object a step, for reports and plots."""

import errno
import json
from collections.abc import Mapping
from pathlib import Path

from onlinerlhf.learner.files import write_text


class StepLog:
    """Appends steps; on resume forgets those that the checkpoint does not contain."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, numbers: Mapping[str, float]) -> None:
        """One line. On OSError the file is as it was."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(dict(numbers)).encode() + b"\n"
        # Unbuffered: a buffer would be written again by the very truncation that is to undo it.
        with self._path.open("ab", buffering=0) as stream:
            size = stream.tell()
            try:
                num_written = stream.write(line)
                if num_written != len(line):
                    raise OSError(errno.ENOSPC, f"only {num_written} of {len(line)} bytes were written")
            except OSError:
                stream.truncate(size)
                raise

    def truncate(self, step: int) -> None:
        """Keep the lines of steps up to `step`; drop later ones and a line that a crash cut short."""
        if not self._path.exists():
            return
        kept = [line for line in self._path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
        staging = self._path.with_name(self._path.name + ".tmp")
        write_text("".join(line + "\n" for line in kept), staging)
        staging.replace(self._path)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
