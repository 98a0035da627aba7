"""Prometheus metrics of the scaler. Labels are names of pools and words from the code."""

import math

from prometheus_client import Counter, Gauge, Histogram

LEADER = Gauge("onlinerlhf_scaler_leader", "1: this process holds the lease and acts")
DESIRED = Gauge("onlinerlhf_scaler_desired_replicas", "Replicas that the scaler wants", ["pool"])
CURRENT = Gauge("onlinerlhf_scaler_current_replicas", "Pods that the pool's Deployment has", ["pool"])
READY = Gauge("onlinerlhf_scaler_ready_replicas", "Pods of the pool that are ready", ["pool"])
CORDONED = Gauge("onlinerlhf_scaler_cordoned_workers", "Workers of the pool that are emptied, to be stopped", ["pool"])
DEGRADED = Gauge("onlinerlhf_scaler_degraded", "1: the scaler cannot do its work on the pool; its size holds", ["pool"])
DECISIONS = Counter("onlinerlhf_scaler_decisions", "Decisions, one a pool and turn", ["pool", "reason"])
RESIZES = Counter("onlinerlhf_scaler_resizes", "Changes of a Deployment's size", ["pool", "direction"])
ERRORS = Counter("onlinerlhf_scaler_errors", "Calls and turns that failed", ["kind"])
TURN_SECONDS = Histogram(
    "onlinerlhf_scaler_turn_seconds",
    "One turn: read, decide, act, report",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
)
LAST_TURN = Gauge("onlinerlhf_scaler_last_turn_timestamp_seconds", "When the last turn ended without a failure")

BACKLOG = Gauge("onlinerlhf_pipeline_backlog", "Prompts undelivered and in flight, as the leader last saw")
IN_FLIGHT = Gauge("onlinerlhf_pipeline_in_flight", "Prompts that workers hold, as the leader last saw")
OLDEST_SECONDS = Gauge("onlinerlhf_pipeline_oldest_seconds", "Age of the oldest prompt not sampled yet")
AHEAD = Gauge("onlinerlhf_pipeline_ahead", "Samples taken and not learned from yet")
STALENESS = Gauge("onlinerlhf_pipeline_staleness_versions", "Mean staleness of the learner's newest step")

PIPELINE = (BACKLOG, IN_FLIGHT, OLDEST_SECONDS, AHEAD, STALENESS)
POOL = (DESIRED, CURRENT, READY, CORDONED, DEGRADED)

# Not a number is what a follower knows of it, and a leader whose Redis is away. 0 would say that nothing waits.
for _gauge in PIPELINE:
    _gauge.set(math.nan)
