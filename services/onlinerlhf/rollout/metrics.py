"""Prometheus metrics of the rollout room. Labels are kinds and stages, never ids or text."""

from prometheus_client import Counter, Gauge, Histogram

VERSION = Gauge("onlinerlhf_rollout_version", "Policy version applied (0: none)")
NEWEST_VERSION = Gauge("onlinerlhf_rollout_newest_known_version", "Newest policy version the learner has offered")
UPDATES_APPLIED = Counter("onlinerlhf_rollout_updates_applied", "Weight updates applied")
UPDATES_REFUSED = Counter("onlinerlhf_rollout_updates_refused", "Weight updates refused", ["kind"])
PAUSE_SECONDS = Histogram(
    "onlinerlhf_rollout_pause_seconds",
    "Seconds the engine stood still for a weight update",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
STAGE_SECONDS = Histogram(
    "onlinerlhf_rollout_stage_seconds",
    "Seconds to pull and verify a version, while generating",
    buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300),
)
TOKENS = Counter("onlinerlhf_rollout_tokens", "Tokens sampled", ["lane"])
IN_FLIGHT = Gauge("onlinerlhf_rollout_in_flight", "Requests in the engine")
SAMPLES = Counter("onlinerlhf_rollout_samples", "Samples by what became of them here", ["outcome"])
IDLE_SHARE = Gauge("onlinerlhf_rollout_idle_share", "Share of the time since ready with no request in flight")
