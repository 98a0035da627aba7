"""A learner process that can be killed and started again within a second.

The parent imports what is slow and starts nothing. Each line on its standard input, a JSON object of environment
variables, forks a real learner with those settings and is answered with its process id. The learner before it, and at
the end of the input the last one, is killed and reaped.
"""

import contextlib
import json
import os
import signal
import sys

from onlinerlhf.learner import app  # noqa: F401 - before the fork, so that each life finds it imported
from onlinerlhf.learner.__main__ import compose
from onlinerlhf.runtime import serving


def main() -> None:
    child = 0
    for line in sys.stdin:
        _reap(child)
        child = os.fork()
        if child == 0:
            os.environ.update(json.loads(line))
            serving.main("learner", compose)
        print(child, flush=True)
    _reap(child)


def _reap(child: int) -> None:
    if child:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
