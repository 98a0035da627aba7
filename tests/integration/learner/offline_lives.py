"""Offline PPO trainings that can be killed and started again within a second.

The parent imports what is slow and starts nothing. Each line on its standard input, a JSON object with `config` and
`digests`, forks a training whose every step appends one line to the file `digests`: its number and what everything that
makes up a PPO adds up to. The parent answers with the process id, and at the next line kills and reaps what is left.
"""

import contextlib
import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping

from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.ppo_state import gather, scalars
from onlinerlhf.learner.training.ppo import train_ppo
from onlinerlhf.learner.training.ppo_train_config import PPOTrainConfig


def main() -> None:
    child = 0
    for line in sys.stdin:
        _reap(child)
        child = os.fork()
        if child == 0:
            _live(**json.loads(line))
        print(child, flush=True)
    _reap(child)


def _live(config: dict[str, object], digests: str) -> None:
    """Train, and end with 0 when all of it is done."""
    code = 1
    try:
        train_ppo(PPOTrainConfig.model_validate(config), on_step=_recorder(digests))
        code = 0
    finally:
        os._exit(code)


def _recorder(path: str) -> Callable[[PPO, Mapping[str, float]], None]:
    def record(ppo: PPO, numbers: Mapping[str, float]) -> None:
        digest = hashlib.sha256(json.dumps(scalars(ppo)).encode())
        for part, tensors in sorted(gather(ppo).items()):
            for name, tensor in sorted(tensors.items()):
                digest.update(f"{part}/{name}".encode() + tensor.numpy().tobytes())
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(f"{numbers['step']} {digest.hexdigest()}\n")

    return record


def _reap(child: int) -> None:
    if child:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
