"""Channels to other rooms: several addresses in turn, keepalive, retries, and the way back from status codes to errors.

A call on such a channel waits until the other side is there, for as long as its own deadline allows.
"""

import json
from typing import Any, Final

import grpc

from onlinerlhf.core.errors import OnlineRLHFError
from onlinerlhf.runtime.certificates import ClientTls
from onlinerlhf.runtime.config import MAX_MESSAGE_BYTES
from onlinerlhf.runtime.reloading_channel import open_reloading
from onlinerlhf.runtime.statuses import REASON_KEY, error_of

__all__ = ["ClientTls", "map_error", "open_channel"]

MAX_CALL_SECONDS: Final = 3600
"""Of a call that its caller gave no deadline."""


def open_channel(
    target: str,
    *,
    tls: ClientTls | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    retry: bool = True,
    healthy_service: str | None = None,
) -> grpc.aio.Channel:
    """A lazy channel to any gRPC target; `ipv4:127.0.0.1:1,127.0.0.1:2` are two addresses.

    tls: certificates and whom to trust; None: plaintext. Raises StartupError where its files are of no use.
    retry: call again, up to 3 times, what failed with UNAVAILABLE before any answer came, or with CANCELLED: so end
    calls that reach a server in the moment in which it stops. Only for methods that may be called twice.
    healthy_service: leave out addresses whose grpc.health does not say SERVING to this name, as long as it does not.
    """
    options = _options(max_message_bytes=max_message_bytes, retry=retry, healthy_service=healthy_service)
    if tls is None:
        return grpc.aio.insecure_channel(target, options=options)
    if tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return open_reloading(tls, lambda credentials: grpc.aio.secure_channel(target, credentials, options=options))


def _options(*, max_message_bytes: int, retry: bool, healthy_service: str | None) -> list[tuple[str, Any]]:
    method: dict[str, Any] = {"name": [{}], "waitForReady": True, "timeout": f"{MAX_CALL_SECONDS}s"}
    if retry:
        method["retryPolicy"] = {
            "maxAttempts": 4,
            "initialBackoff": "0.1s",
            "maxBackoff": "2s",
            "backoffMultiplier": 3,
            "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
        }
    service_config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": [method]}
    if healthy_service is not None:
        service_config["healthCheckConfig"] = {"serviceName": healthy_service}
    return [
        ("grpc.service_config", json.dumps(service_config)),
        ("grpc.enable_retries", int(retry)),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # A peer that was restarted is found again within about a second.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 500),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # A connection that the other side has aged out is the occasion to see new replicas: gRPC would look the name
        # up again 30 s after the last time at the soonest.
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ]


def map_error(error: grpc.aio.AioRpcError, what: str) -> OnlineRLHFError:
    """The error that the other side raised, or what the failure of the call amounts to; `what` names the call."""
    reason = ""
    for key, value in error.trailing_metadata() or ():
        if key == REASON_KEY:
            reason = value if isinstance(value, str) else value.decode("ascii", "replace")
    return error_of(error.code(), reason, f"{what}: {error.details() or error.code().name}")
