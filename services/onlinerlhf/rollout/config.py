"""Settings of the rollout room: section [rollout]."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from onlinerlhf.core.samples import SamplingSpec
from onlinerlhf.runtime.config import ServiceConfig

GIB = 1024**3


class RolloutConfig(ServiceConfig):
    """What a worker samples with, how far ahead of the learner, and what its engine may use."""

    worker_id: str = "rollout-0"
    """Also the consumer name; stable across restarts so that a restart finds what it held."""
    model_dir: Path
    """A transformers directory: architecture and tokenizer. Its weights are replaced before any work is taken."""
    learner_target: str
    """gRPC target of the learner's WeightService."""
    weights_line: Literal["policy", "ema"] = "policy"
    """Which of the learner's weights to follow. ema, their moving average, is for workers that answer users: training
    samples should come from the policy line, whose weights are the ones that learn from them."""
    staging_dir: Path
    """This worker's own directory for pulled versions."""

    num_responses: int = Field(default=1, ge=1)
    """Responses a sample."""
    max_tokens: int = Field(default=256, ge=1)
    """Longest training response."""
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_samples_ahead: int = Field(default=1024, ge=1)
    """Samples in [rollouts], [scored] and in flight here at which reading stops: what bounds staleness."""
    max_concurrent_samples: int = Field(default=64, ge=1)
    read_ahead_samples: int = Field(default=64, ge=0)
    """Samples read beyond those being sampled, so that the engine never waits for Redis."""
    max_user_requests: int = Field(default=32, ge=1)
    """User-lane requests in the engine beside the training work; more than that are refused."""
    max_versions_behind: int = Field(default=2, ge=0)
    """Further behind the newest known version than this, a worker takes no training work."""
    sample_timeout_seconds: float = Field(default=600.0, gt=0)
    lease_seconds: float = Field(default=30.0, gt=0)
    delivery_limit: int = Field(default=5, ge=1)

    manifest_wait_seconds: float = Field(default=20.0, gt=0)
    """How long the learner may hold a question for a newer version."""
    fetch_timeout_seconds: float = Field(default=600.0, gt=0)
    """Deadline of one Fetch stream; a broken stream goes on where it stopped."""
    apply_timeout_seconds: float = Field(default=120.0, gt=0)
    """An engine that does not take staged weights within this is out of service."""
    start_timeout_seconds: float = Field(default=600.0, gt=0)

    dtype: str = "float32"
    max_model_len: int | None = Field(default=None, ge=2)
    """Most tokens of a prompt with its response. None: what the model was made for."""
    kv_cache_bytes: int | None = Field(default=GIB, ge=1)
    """Memory for the KV cache. None (GPUs): what gpu_memory_utilization leaves."""
    gpu_memory_utilization: float = Field(default=0.85, gt=0, le=1)
    enforce_eager: bool = True
    """False on GPUs: captures CUDA graphs."""
    prefix_caching: bool = True
    cpu_threads_bind: str = "auto"
    """VLLM_CPU_OMP_THREADS_BIND: auto, nobind, or cores like 0-3."""
    cpu_reserved_cores: int | None = Field(default=None, ge=0)
    """Cores left to this process beside the engine's own. None: vLLM chooses."""
    seed: int = 0

    @property
    def sampling(self) -> SamplingSpec:
        """How training responses are drawn."""
        return SamplingSpec(
            num_responses=self.num_responses,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
        )

    @property
    def max_sequences(self) -> int:
        """Sequences in the engine at once. The user lane has slots of its own: priority alone frees none."""
        return self.max_concurrent_samples * self.num_responses + self.max_user_requests
