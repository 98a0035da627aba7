"""The gRPC servers of a room: its own, with or without TLS, and the plaintext one for probes."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from onlinerlhf.core.errors import StartupError
from onlinerlhf.runtime import tls
from onlinerlhf.runtime.certificates import CertificateFiles
from onlinerlhf.runtime.config import ServiceConfig
from onlinerlhf.runtime.diagnostics_service import DiagnosticsServicer
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.health_service import HEALTH_SERVICE, HealthServicer
from onlinerlhf.runtime.interceptor import CallInterceptor
from onlinerlhf.runtime.tasks import end
from onlinerlhf.v1 import diagnostics_pb2, diagnostics_pb2_grpc

log = logging.getLogger(__name__)

Register: TypeAlias = Callable[[grpc.aio.Server], Sequence[str]]
"""Adds servicers; returns their full names."""

MAX_PENDING_CALLS: Final = 10_000
"""Calls that a server holds which it has not begun; beyond twice as many it cancels them."""
MAX_QUESTION_BYTES: Final = 1_024
"""What the health port takes: the name of a service."""
LOOK_SECONDS: Final = 10.0
"""Between two looks at certificates that nobody connects to."""


@asynccontextmanager
async def room_server(
    config: ServiceConfig, health: Health, answers: HealthServicer, register: Register
) -> AsyncIterator[grpc.aio.Server]:
    """The room's services with health, diagnostics and reflection, started. Raises StartupError."""
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_news)
    server = grpc.aio.server(
        interceptors=[CallInterceptor(max_call_seconds=config.max_call_seconds)], options=_options(config)
    )
    services = [*register(server), diagnostics_pb2.DESCRIPTOR.services_by_name["DiagnosticsService"].full_name]
    health_pb2_grpc.add_HealthServicer_to_server(answers, server)
    diagnostics_pb2_grpc.add_DiagnosticsServiceServicer_to_server(DiagnosticsServicer(health), server)
    reflection.enable_server_reflection((*services, HEALTH_SERVICE, reflection.SERVICE_NAME), server)
    certificates = config.server_certificates("server")
    address = _bind(server, config, certificates)
    await server.start()
    log.info("listening", extra={"address": address})
    answers.begin(services)
    watch = asyncio.create_task(_watch(certificates), name="certificates")
    try:
        yield server
    finally:
        await end([watch])
        await server.stop(None)


@asynccontextmanager
async def health_server(config: ServiceConfig, answers: HealthServicer) -> AsyncIterator[None]:
    """grpc.health.v1 alone on health_listen: kubelets have no certificates. Open longer than the room's own server."""
    if config.health_listen is None:
        yield
        return
    options = [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", MAX_QUESTION_BYTES),
        ("grpc.max_send_message_length", MAX_QUESTION_BYTES),
    ]
    server = grpc.aio.server(options=options)
    health_pb2_grpc.add_HealthServicer_to_server(answers, server)
    address = _add_port(server, config.health_listen, None)
    await server.start()
    log.info("listening", extra={"address": address, "protocol": "health"})
    try:
        yield
    finally:
        await server.stop(None)


def _options(config: ServiceConfig) -> list[tuple[str, int]]:
    options = [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", config.max_message_bytes),
        # Two processes on one port would share its calls without a word.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients ping during long calls; that is no abuse.
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 0),
        # A burst waits for its turn; grpc would cancel what is beyond 1,000 without a word to anybody here.
        ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_PENDING_CALLS),
    ]
    if config.max_connection_age_seconds is not None:
        options += [
            ("grpc.max_connection_age_ms", round(1_000 * config.max_connection_age_seconds)),
            ("grpc.max_connection_age_grace_ms", round(1_000 * config.connection_grace_seconds)),
        ]
    return options


def _bind(server: grpc.aio.Server, config: ServiceConfig, certificates: CertificateFiles | None) -> str:
    if certificates is None:
        return _add_port(server, config.listen, None)
    credentials = tls.server_credentials(certificates, need_client_certificate=config.needs_client_certificates)
    return _add_port(server, config.listen, credentials)


def _add_port(server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials | None) -> str:
    try:
        port = server.add_insecure_port(listen) if credentials is None else server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise StartupError(f"cannot listen on {listen}: the address is in use or not of this machine") from error
    return listen if listen.startswith("unix") else f"{listen.rpartition(':')[0]}:{port}"


async def _watch(certificates: CertificateFiles | None) -> None:
    """Files that went bad are to be told of before the next connection meets them."""
    while certificates is not None:
        await asyncio.sleep(LOOK_SECONDS)
        await asyncio.to_thread(certificates.current)


def _is_news(record: logging.LogRecord) -> bool:
    """grpc logs as an error that it cannot send to a client whose end it has not heard of yet. Clients may go."""
    return not (record.exc_info and isinstance(record.exc_info[1], grpc.aio.InternalError))
