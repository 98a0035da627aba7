"""Waits until files are there: `python -m onlinerlhf.runtime.await_path PATH… --timeout-seconds N`.

For init containers, before a room that needs models which something else is still writing. Directories must appear
whole, as those of `onlinerlhf bootstrap` do. Ends with 0 when all paths exist and 1 when the time is over; 2 is a usage
error.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

POLL_SECONDS: Final = 1.0
REPORT_SECONDS: Final = 30.0
"""Between two lines that say what is still waited for."""


def await_paths(
    paths: Sequence[Path],
    *,
    timeout_seconds: float,
    report: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Whether all paths exist within the time; looks at least once."""
    started = clock()
    next_report = started
    while missing := [path for path in paths if not path.exists()]:
        waited, names = clock() - started, ", ".join(str(path) for path in missing)
        if waited >= timeout_seconds:
            report(f"still not there after {waited:.0f} s: {names}")
            return False
        if clock() >= next_report:
            report(f"waiting up to {timeout_seconds - waited:.0f} s for {names}")
            next_report += REPORT_SECONDS
        sleep(min(POLL_SECONDS, timeout_seconds - waited))
    report(f"there after {clock() - started:.0f} s: {', '.join(str(path) for path in paths)}")
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Wait until files are there.")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--timeout-seconds", type=_positive, required=True)
    options = parser.parse_args(arguments)
    return 0 if await_paths(options.paths, timeout_seconds=options.timeout_seconds, report=_say) else 1


def _positive(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of seconds")
    return seconds


def _say(line: str) -> None:
    print(f"await_path: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
