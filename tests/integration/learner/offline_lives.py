"""Offline PPO trainings: each line of input holds `config` and `digests`.

Every step of a training appends one line to the file `digests`: its number and what everything that makes up a PPO adds
up to.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from integration.learner.forks import serve
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.ppo_state import gather, scalars
from onlinerlhf.learner.training.ppo import train_ppo
from onlinerlhf.learner.training.ppo_train_config import PPOTrainConfig


def live(message: dict[str, Any]) -> None:
    """Train, and end with 0 when all of it is done."""
    code = 1
    try:
        train_ppo(PPOTrainConfig.model_validate(message["config"]), on_step=_recorder(message["digests"]))
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


if __name__ == "__main__":
    serve(live)
