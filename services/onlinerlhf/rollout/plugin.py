"""vLLM's entry point `vllm.general_plugins`: vLLM calls `register` in this process and in each it starts."""

import multiprocessing
import os
import signal
import threading

from vllm.distributed.weight_transfer import WeightTransferEngineFactory

BACKEND = "onlinerlhf_staged"


def register() -> None:
    """Make the staged-file weight transfer known under `BACKEND`. May be called more than once in one process."""
    if BACKEND in WeightTransferEngineFactory._registry:
        return
    WeightTransferEngineFactory.register_engine(
        BACKEND, "onlinerlhf.rollout.weight_transfer", "StagedFileTransferEngine"
    )
    _die_with_parent()


def _die_with_parent() -> None:
    """vLLM's engine process outlives a service that is killed outright, and would keep its memory and cores."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="die-with-parent", daemon=True).start()
