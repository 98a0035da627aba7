"""Channel settings shared by both clients, and how they know a gateway that speaks TLS."""

import json
from dataclasses import dataclass
from pathlib import Path

import grpc

# A call that reaches a gateway in the moment in which it stops ends with CANCELLED. Up there nobody can tell that from
# a cancellation of their own, so it is begun again here, with the same idempotency key.
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["CANCELLED"],
            },
        }
    ]
}
# Notice a dead connection within half a minute, and come back soon after a restart of the gateway: gRPC's own
# reconnect delay grows to two minutes.
OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Where the authorities that gRPC brings are not the gateway's, or the gateway asks for certificates.

    Files are PEM and read once, when a client is made.
    """

    ca: Path | str | None = None
    """Whom to trust instead of gRPC's own authorities."""
    cert: Path | str | None = None
    """Own certificate; `key` goes with it."""
    key: Path | str | None = None
    server_name: str | None = None
    """Name in the gateway's certificate, where the target goes by another."""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together: one of them is not set")


def security(tls: bool | Tls) -> tuple[grpc.ChannelCredentials | None, tuple[tuple[str, int | str], ...]]:
    """Credentials and options of a channel; no credentials: plaintext. Raises OSError for an unreadable file."""
    if tls is False:
        return None, OPTIONS
    given = Tls() if tls is True else tls
    ca, key, cert = (None if path is None else Path(path).read_bytes() for path in (given.ca, given.key, given.cert))
    name = () if given.server_name is None else (("grpc.ssl_target_name_override", given.server_name),)
    return grpc.ssl_channel_credentials(ca, key, cert), (*OPTIONS, *name)
