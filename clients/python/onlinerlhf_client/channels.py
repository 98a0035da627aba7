"""Channel settings shared by both clients."""

# Notice a dead connection within half a minute, and come back soon after a restart of the gateway: gRPC's own
# reconnect delay grows to two minutes.
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # gRPC would share one connection among all clients of a process.
    ("grpc.use_local_subchannel_pool", 1),
)
