"""Settings of the reward room: section [reward]."""

from pathlib import Path

from pydantic import Field

from onlinerlhf.runtime.config import ServiceConfig


class RewardConfig(ServiceConfig):
    """What the reward worker scores with, and how much at once."""

    worker_id: str = "reward-0"
    """Also the consumer name; stable across restarts so that a restart finds what it held."""
    model_dir: Path
    """A transformers sequence-classification directory with one output."""
    batch_tokens: int = Field(default=8192, ge=1)
    """Padded tokens of one forward pass; a longer single sequence is scored alone."""
    max_groups_per_read: int = Field(default=32, ge=1)
    max_items_per_call: int = Field(default=256, ge=1)
    """Largest Score request."""
    scored_bound: int = Field(default=4096, ge=1)
    """Entries in [scored] at which this room waits for the learner."""
    lease_seconds: float = Field(default=30.0, gt=0)
    delivery_limit: int = Field(default=5, ge=1)
    num_threads: int = Field(default=1, ge=1)
    """torch threads."""
