"""What vLLM reads from the environment when it is first imported; the processes it starts inherit it."""

import os

from onlinerlhf.rollout.config import RolloutConfig


def prepare(config: RolloutConfig) -> None:
    """Set vLLM's environment. Call before anything imports it. What the operator set already stays."""
    defaults = {
        # Nothing is fetched from a model hub, and nothing reported to anyone.
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # This process's JSON lines carry vLLM's warnings; its own processes print theirs to stderr.
        "VLLM_CONFIGURE_LOGGING": "0",
        "VLLM_LOGGING_LEVEL": "WARNING",
        # Forking a process with gRPC threads in it deadlocks now and then.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_HOST_IP": "127.0.0.1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_CPU_OMP_THREADS_BIND": config.cpu_threads_bind,
    }
    if config.enforce_eager:
        # vLLM's sampler compiles a function even so, and dies at its first batch where there is no C++ compiler.
        defaults["TORCHDYNAMO_DISABLE"] = "1"
    if config.cpu_reserved_cores is not None:
        defaults["VLLM_CPU_NUM_OF_RESERVED_CPU"] = str(config.cpu_reserved_cores)
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
