"""Prometheus metrics of the learner."""

from collections.abc import Mapping

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.01, 0.05, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800)

STEP = Gauge("onlinerlhf_learner_step", "PPO steps done")
VERSION = Gauge("onlinerlhf_learner_policy_version", "Newest policy version")
STEP_VALUE = Gauge("onlinerlhf_learner_step_value", "Numbers of the newest PPO step", ["name"])
STEP_SECONDS = Histogram("onlinerlhf_learner_step_seconds", "PPO steps", buckets=_SECONDS)
COLLECT_SECONDS = Histogram("onlinerlhf_learner_collect_seconds", "Waits for a batch", buckets=_SECONDS)
PUBLISH_SECONDS = Histogram("onlinerlhf_learner_publish_seconds", "Writing a version", ["line"], buckets=_SECONDS)
CHECKPOINT_SECONDS = Histogram("onlinerlhf_learner_checkpoint_seconds", "Writing a checkpoint", buckets=_SECONDS)
IDLE_SHARE = Gauge("onlinerlhf_learner_idle_share", "Share of the time since start spent waiting for samples")
STALENESS = Histogram(
    "onlinerlhf_learner_staleness_versions", "Of trained samples", buckets=(0, 1, 2, 3, 4, 6, 8, 12, 16)
)
CHECKPOINT_FAILURES = Counter("onlinerlhf_learner_checkpoint_failures_total", "Checkpoints that could not be written")
PUBLISH_FAILURES = Counter("onlinerlhf_learner_publish_failures_total", "Versions not published", ["line"])
UNDONE_STEPS = Counter("onlinerlhf_learner_undone_steps_total", "PPO steps that failed and were undone", ["error"])


def export_step(numbers: Mapping[str, float]) -> None:
    """Show a step's numbers."""
    STEP.set(numbers["step"])
    VERSION.set(numbers["version"])
    STEP_SECONDS.observe(numbers["step_seconds"])
    COLLECT_SECONDS.observe(numbers["collect_seconds"])
    IDLE_SHARE.set(numbers["idle_share"])
    for name, number in numbers.items():
        STEP_VALUE.labels(name).set(number)
