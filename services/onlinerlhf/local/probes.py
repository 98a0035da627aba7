"""Questions to single processes. Each has a deadline and shares no channel: a diagnosis must not inherit a back-off."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from redis.asyncio import Redis
from redis.exceptions import RedisError

from onlinerlhf.local.snapshot import ComponentView, LearnerView, RolloutView
from onlinerlhf.v1 import (
    diagnostics_pb2,
    diagnostics_pb2_grpc,
    learner_pb2,
    learner_pb2_grpc,
    rollout_pb2,
    rollout_pb2_grpc,
)

DEADLINE_SECONDS = 3.0
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))


@asynccontextmanager
async def fresh_channel(
    address: str, *, ca: bytes | None = None, server_name: str | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel for one question. ca: PEM of whom to trust, for a room that speaks TLS."""
    if ca is None:
        channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
    else:
        name = () if server_name is None else (("grpc.ssl_target_name_override", server_name),)
        channel = grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(ca), options=(*_OPTIONS, *name))
    async with channel:
        yield channel


async def room_waits_for(address: str) -> str:
    """What a room still waits for; empty when its health service says SERVING."""
    try:
        async with fresh_channel(address) as channel:
            reply = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=DEADLINE_SECONDS
            )
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                return ""
            components, _ = await ask_components(channel)
    except grpc.aio.AioRpcError as error:
        return f"an answer on {address} ({error.code().name})"
    reasons = [f"{each.name} ({each.reason})" for each in components if not each.ok]
    return ", ".join(reasons) or "being told that it serves"


async def redis_waits_for(url: str) -> str:
    """What Redis still waits for; empty when it answers PING."""
    client = Redis.from_url(url, socket_timeout=DEADLINE_SECONDS, socket_connect_timeout=DEADLINE_SECONDS)
    try:
        await asyncio.wait_for(client.ping(), DEADLINE_SECONDS)
    except (RedisError, OSError, TimeoutError) as error:
        return f"an answer from Redis ({type(error).__name__})"
    finally:
        await client.aclose()
    return ""


async def ask_components(channel: grpc.aio.Channel) -> tuple[tuple[ComponentView, ...], float]:
    """A room's components, and its uptime in seconds."""
    stub = diagnostics_pb2_grpc.DiagnosticsServiceStub(channel)
    reply = await stub.GetComponents(diagnostics_pb2.GetComponentsRequest(), timeout=DEADLINE_SECONDS)
    views = tuple(
        ComponentView(name=each.name, ok=each.ok, reason=each.reason, since_seconds=each.since_seconds)
        for each in reply.components
    )
    return views, reply.uptime_seconds


async def ask_rollout(channel: grpc.aio.Channel, name: str) -> RolloutView:
    """A worker's status."""
    stub = rollout_pb2_grpc.RolloutServiceStub(channel)
    reply = await stub.GetStatus(rollout_pb2.GetRolloutStatusRequest(), timeout=DEADLINE_SECONDS)
    return RolloutView(
        name=name,
        version=reply.version,
        ready=reply.ready,
        reason=reply.reason,
        num_in_flight=reply.num_in_flight,
        num_tokens_generated=reply.num_tokens_generated,
        tokens_per_second=reply.tokens_per_second,
        num_updates_applied=reply.num_updates_applied,
        num_updates_refused=reply.num_updates_refused,
        pause_seconds=reply.pause_seconds,
        last_refusal=reply.last_refusal,
        idle_share=reply.idle_share,
        observed_seconds=reply.observed_seconds,
    )


async def ask_learner(channel: grpc.aio.Channel) -> LearnerView:
    """The learner's progress."""
    stub = learner_pb2_grpc.LearnerServiceStub(channel)
    reply = await stub.GetProgress(learner_pb2.GetProgressRequest(), timeout=DEADLINE_SECONDS)
    return LearnerView(
        step=reply.step,
        version=reply.version,
        checkpoint_step=reply.checkpoint_step,
        metrics=dict(reply.metrics),
        phase=reply.phase,
        num_collected=reply.num_collected,
        batch_size=reply.batch_size,
        idle_share=reply.idle_share,
        observed_seconds=reply.observed_seconds,
        last_error=reply.last_error,
    )
