"""Processes that can be killed and started again within a second, and are not left behind."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any


def serve(live: Callable[[dict[str, Any]], object]) -> None:
    """Forks a life for each JSON object on standard input and answers with its process id.

    The life before it, and at the end of the input the last one, is killed and reaped. The parent starts nothing,
    so all that its module imports is there in each life.
    """
    child = 0
    for line in sys.stdin:
        _reap(child)
        child = os.fork()
        if child == 0:
            live(json.loads(line))
        print(child, flush=True)
    _reap(child)


def _reap(child: int) -> None:
    if child:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
