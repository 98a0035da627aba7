"""Channels to other rooms: several addresses in turn, keepalive, retries, and the way back from status codes to errors.

A call on such a channel waits until the other side is there, for as long as its own deadline allows.
"""

import json
from typing import Any, Final

import grpc

from onlinerlhf.core.errors import OnlineRLHFError
from onlinerlhf.runtime.config import MAX_MESSAGE_BYTES
from onlinerlhf.runtime.statuses import REASON_KEY, error_of

MAX_CALL_SECONDS: Final = 3600
"""Of a call that its caller gave no deadline."""


def open_channel(target: str, *, max_message_bytes: int = MAX_MESSAGE_BYTES, retry: bool = True) -> grpc.aio.Channel:
    """A lazy channel to any gRPC target; `ipv4:127.0.0.1:1,127.0.0.1:2` are two addresses.

    retry: call again, up to 3 times, what failed with UNAVAILABLE before any answer came. Only for methods that
    may be called twice.
    """
    method: dict[str, Any] = {"name": [{}], "waitForReady": True, "timeout": f"{MAX_CALL_SECONDS}s"}
    if retry:
        method["retryPolicy"] = {
            "maxAttempts": 4,
            "initialBackoff": "0.1s",
            "maxBackoff": "2s",
            "backoffMultiplier": 3,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
    service_config = {"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": [method]}
    return grpc.aio.insecure_channel(
        target,
        options=[
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
        ],
    )


def map_error(error: grpc.aio.AioRpcError, what: str) -> OnlineRLHFError:
    """The error that the other side raised, or what the failure of the call amounts to; `what` names the call."""
    reason = ""
    for key, value in error.trailing_metadata() or ():
        if key == REASON_KEY:
            reason = value if isinstance(value, str) else value.decode("ascii", "replace")
    return error_of(error.code(), reason, f"{what}: {error.details() or error.code().name}")
