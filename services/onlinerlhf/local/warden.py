"""Ends every child when the supervisor dies without draining: `python -m onlinerlhf.local.warden`.

The supervisor holds the other end of this process's stdin and writes a line a child: "+<pid>" when it has started a
process group, "-<pid>" when that group is gone. The kernel closes the pipe however the supervisor ends, SIGKILL
included; what is then still on the list is told to stop and, after a grace, killed.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable

GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.1


def groups_left(lines: Iterable[str]) -> set[int]:
    """Process groups that were started and not reported gone."""
    groups: set[int] = set()
    for line in lines:
        pid = int(line[1:])
        if line.startswith("+"):
            groups.add(pid)
        else:
            groups.discard(pid)
    return groups


def end_groups(groups: set[int], *, grace_seconds: float) -> None:
    """SIGTERM to all, then SIGKILL to what is left after the grace."""
    alive = {group for group in groups if signal_group(group, signal.SIGTERM)}
    deadline = time.monotonic() + grace_seconds
    while alive and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        alive = {group for group in alive if signal_group(group, 0)}
    for group in alive:
        signal_group(group, signal.SIGKILL)


def signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; False when it no longer exists."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    """Read until the supervisor is gone, then end what it left."""
    groups = groups_left(line.strip() for line in sys.stdin if line.strip())
    end_groups(groups, grace_seconds=GRACE_SECONDS)


if __name__ == "__main__":
    main()
