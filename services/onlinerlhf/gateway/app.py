"""Composition root of the gateway room."""

import asyncio
import logging
from collections.abc import Sequence

import grpc
from redis.asyncio import Redis

from onlinerlhf.gateway.admission import Admissions
from onlinerlhf.gateway.config import GatewayConfig
from onlinerlhf.gateway.feeder import Feeder
from onlinerlhf.gateway.lane import UserLane
from onlinerlhf.gateway.pool import Limits, Pool
from onlinerlhf.gateway.reach import RolloutReach
from onlinerlhf.gateway.samples import SampleReader
from onlinerlhf.gateway.screens import build_screens
from onlinerlhf.gateway.service import GatewayServicer
from onlinerlhf.models.tokenizer import PromptTokenizer
from onlinerlhf.runtime import channels, logs, redis, serving
from onlinerlhf.runtime import config as configs
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.v1 import gateway_pb2, gateway_pb2_grpc

log = logging.getLogger(__name__)


async def run() -> None:
    """Read the settings, then serve until told to stop."""
    run_config, config = configs.load("gateway", GatewayConfig)
    logs.setup("gateway", level=run_config.log_level)
    log.info("settings", extra=configs.describe(run_config, config))
    await serve(run_config, config, health=Health("gateway"))


async def serve(run_config: RunConfig, config: GatewayConfig, *, health: Health) -> None:
    """Load the tokenizer, serve and feed."""
    health.set("redis", ok=False, reason="not reached yet")
    tokenizer = await asyncio.to_thread(PromptTokenizer.load, config.model_dir)
    health.set("tokenizer", ok=True)
    client = redis.connect(run_config)
    channel = channels.open_channel(config.rollout_target, max_message_bytes=config.max_message_bytes)
    try:
        await _serve(run_config, config, health=health, tokenizer=tokenizer, client=client, channel=channel)
    finally:
        await channel.close()
        await client.aclose()


async def _serve(
    run_config: RunConfig,
    config: GatewayConfig,
    *,
    health: Health,
    tokenizer: PromptTokenizer,
    client: Redis,
    channel: grpc.aio.Channel,
) -> None:
    keys = RunKeys(run_config.id)
    patience = redis.Patience(health)
    ledger = Ledger(client, keys)
    hash_key = config.hash_key.get_secret_value().encode() if config.hash_key else None
    pool = Pool(client, keys, _limits(config), hash_key=hash_key)
    screens = build_screens(encoder=tokenizer, max_bytes=config.max_prompt_bytes, max_tokens=config.max_prompt_tokens)
    on_admitted = asyncio.Event()
    admissions = Admissions(pool, screens, patience, on_admitted=on_admitted)
    feeder = Feeder(pool, patience, poll_seconds=config.feed_poll_seconds, on_admitted=on_admitted)
    servicer = GatewayServicer(admissions, UserLane(channel), SampleReader(ledger, patience), config)

    def register(server: grpc.aio.Server) -> Sequence[str]:
        gateway_pb2_grpc.add_GatewayServiceServicer_to_server(servicer, server)
        return [gateway_pb2.DESCRIPTOR.services_by_name["GatewayService"].full_name]

    background = {"feeder": feeder.run, "rollout_reach": RolloutReach(channel).run, "ledger": ledger.export_forever}
    await serving.run_service("gateway", config, health=health, register=register, background=background)


def _limits(config: GatewayConfig) -> Limits:
    return Limits(
        prompts_per_user=config.prompts_per_user,
        pool_bound=config.pool_bound,
        prompts_bound=config.prompts_bound,
        max_epochs=config.max_epochs,
        idempotency_seconds=config.idempotency_seconds,
    )
