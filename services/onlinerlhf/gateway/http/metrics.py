"""What the HTTP front measures. Routes are our own words, never a path that a client sent."""

from prometheus_client import Histogram

SECONDS = Histogram(
    "onlinerlhf_gateway_http_seconds",
    "Time from a request's first byte to its response's last, by route and status",
    ["route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0),
)
