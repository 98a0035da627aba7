"""Prometheus metrics that every room exports. Labels are names from the code, never from a request."""

from prometheus_client import Counter, Gauge, Histogram

STREAM_BACKLOG = Gauge("onlinerlhf_stream_backlog", "Entries of a work stream: unread and in hand", ["stage"])
STREAM_OLDEST = Gauge(
    "onlinerlhf_stream_oldest_seconds", "Age of a work stream's oldest entry; 0: it is empty", ["stage"]
)
STREAM_PENDING_IDLE = Gauge(
    "onlinerlhf_stream_pending_idle_seconds",
    "Longest time that nobody renewed the lease of an entry in hand; 0: none is in hand",
    ["stage"],
)
DEAD_STREAM_LENGTH = Gauge("onlinerlhf_dead_stream_length", "Dead letters kept", ["stage"])
HELD = Gauge("onlinerlhf_held_entries", "Entries that this process holds a lease on", ["stage"])
HANDED_OVER = Counter("onlinerlhf_handed_over_total", "Samples that this process moved on from a stage", ["stage"])
DROPPED = Counter("onlinerlhf_dropped_total", "Samples that this process dropped", ["stage", "reason"])
DEAD_LETTERS = Counter("onlinerlhf_dead_letters_total", "Entries that this process found dead", ["stage"])
LEASES_LOST = Counter("onlinerlhf_leases_lost_total", "Entries that another consumer took from this process", ["stage"])
REDIS_RETRIES = Counter("onlinerlhf_redis_retries_total", "Calls tried again because Redis was away")

LEDGER_SAMPLES = Gauge("onlinerlhf_ledger_samples", "Samples in a ledger state", ["state", "reason"])
LEDGER_ADMITTED = Gauge("onlinerlhf_ledger_admitted", "Samples ever admitted")
LEDGER_IMBALANCE = Gauge(
    "onlinerlhf_ledger_imbalance", "admitted - trained - dropped - pending; anything but 0 is a bug"
)

RPC_SECONDS = Histogram(
    "onlinerlhf_rpc_seconds",
    "Calls served, by status code",
    ["method", "code"],
    buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600),
)
COMPONENT_UP = Gauge("onlinerlhf_component_up", "1: the component is ok", ["room", "component"])
BACKGROUND_RESTARTS = Counter(
    "onlinerlhf_background_restarts_total", "Background tasks that failed and were restarted", ["task"]
)
TLS_RELOADS = Counter(
    "onlinerlhf_tls_reloads_total", "Changed certificate files, loaded or refused because of no use", ["role", "result"]
)
