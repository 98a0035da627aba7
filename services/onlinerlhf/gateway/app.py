"""Composition root of the gateway room."""

import asyncio
import gc
import logging
import ssl
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final, cast

import grpc
from redis.asyncio import Redis

from onlinerlhf.core.errors import Unavailable
from onlinerlhf.gateway import settings
from onlinerlhf.gateway.access.authentication import Authenticator
from onlinerlhf.gateway.access.identity import HashKey
from onlinerlhf.gateway.access.keys import KeyStore
from onlinerlhf.gateway.access.limits import Meter
from onlinerlhf.gateway.admission.feeder import Feeder
from onlinerlhf.gateway.admission.intake import Intake
from onlinerlhf.gateway.admission.pool import Pool
from onlinerlhf.gateway.admission.splits import Splits, check_lineage
from onlinerlhf.gateway.config import GatewayConfig
from onlinerlhf.gateway.data_service import DataServicer
from onlinerlhf.gateway.http.server import HttpFront
from onlinerlhf.gateway.http.settings import FrontSettings
from onlinerlhf.gateway.kept.answers import Answers
from onlinerlhf.gateway.kept.feedback import Feedback
from onlinerlhf.gateway.pii.scanner import Scanner, ScreenFailed, build_scanner
from onlinerlhf.gateway.reach import RolloutReach
from onlinerlhf.gateway.requests.afterwards import Afterwards
from onlinerlhf.gateway.requests.desk import Desk, Stores
from onlinerlhf.gateway.requests.lane import UserLane
from onlinerlhf.gateway.requests.opening import Opener
from onlinerlhf.gateway.requests.receipts import Receipts
from onlinerlhf.gateway.requests.samples import SampleReader
from onlinerlhf.gateway.rights.erasure import Erasure
from onlinerlhf.gateway.rights.export_user import UserExport
from onlinerlhf.gateway.rights.retention import Retention
from onlinerlhf.gateway.service import GatewayServicer
from onlinerlhf.models.tokenizer import PromptTokenizer
from onlinerlhf.runtime import channels, logs, redis, serving, tls, tracing
from onlinerlhf.runtime import config as configs
from onlinerlhf.runtime.batches import Batcher
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.tasks import end
from onlinerlhf.v1 import data_pb2, data_pb2_grpc, gateway_pb2, gateway_pb2_grpc

log = logging.getLogger(__name__)

INTAKE_WORKERS: Final = 8
"""Answered prompts judged at a time."""
LEARNING_ONLY: Final = ("redis", "intake", "feeder", "retention", "ledger", "rollout_reach")
"""What may fail while users are answered: those with production keys known here need no Redis either."""
LINEAGE_SECONDS: Final = 5.0
"""Patience is given up now and then only to look whether the process is to stop."""


async def run() -> None:
    """Read the settings, then serve until told to stop."""
    run_config, config = configs.load("gateway", GatewayConfig)
    logs.setup("gateway", level=run_config.log_level)
    tracing.setup("gateway", run_id=run_config.id)
    log.info("settings", extra=configs.describe(run_config, config))
    # What was imported lives for ever, and requests make no cycles: collections need be neither deep nor frequent.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    # A thread that tokenises beside the event loop wants the interpreter back within this, not within 5 ms.
    sys.setswitchinterval(0.002)
    await serve(run_config, config, health=Health("gateway", learning_only=LEARNING_ONLY))


async def serve(run_config: RunConfig, config: GatewayConfig, *, health: Health) -> None:
    """Load the tokenizer and the scanner, serve and feed."""
    health.set("redis", ok=False, reason="not reached yet")
    tokenizer = await asyncio.to_thread(PromptTokenizer.load, config.model_dir)
    health.set("tokenizer", ok=True)
    async with AsyncExitStack() as stack:
        scanner = build_scanner(config.ner_command, timeout_seconds=config.scan_seconds)
        stack.push_async_callback(scanner.close)
        warming = asyncio.create_task(_warm_up(scanner), name="warm up the scanner")
        stack.push_async_callback(end, [warming])
        client = redis.connect(run_config)
        stack.push_async_callback(client.aclose)
        batcher = Batcher(client)
        stack.push_async_callback(batcher.aclose)
        channel = channels.open_channel(
            config.rollout_target,
            tls=config.client_tls(),
            max_message_bytes=config.max_message_bytes,
            # Not to workers that drain or hold no policy version yet: what is begun there could end with them.
            healthy_service="users",
        )
        stack.push_async_callback(channel.close)
        room = _Room(run_config, config, health, tokenizer, scanner, client, cast(Redis, batcher), channel)
        await room.serve()


async def _warm_up(scanner: Scanner) -> None:
    """An engine of names takes long to start. Nobody is kept waiting; until it is there nothing is learned from."""
    try:
        await scanner.scan("warm up")
    except ScreenFailed as error:
        log.error("the scanner fails: prompts are answered and not learned from", extra={"reason": str(error)})


class _Room:
    """Everything of one gateway, made once and wired together."""

    def __init__(
        self,
        run_config: RunConfig,
        config: GatewayConfig,
        health: Health,
        tokenizer: PromptTokenizer,
        scanner: Scanner,
        client: Redis,
        batched: Redis,
        channel: grpc.aio.Channel,
    ) -> None:
        """`client` is for what is rare or long; `batched` for what every request asks."""
        self._config = config
        self._health = health
        self._channel = channel
        keys = self._keys = RunKeys(run_config.id)
        patience = self._patience = redis.Patience(health)
        secret = config.hash_key.get_secret_value().encode() if config.hash_key else None
        self._client = client
        self._hash_key = HashKey(client, keys, secret)
        self._splits = Splits(salt=config.split_salt, valid_share=config.valid_share, test_share=config.test_share)
        self._ledger = Ledger(client, keys)
        self._afterwards = Afterwards()
        self._on_admitted = asyncio.Event()
        self._feeder = Feeder(
            Pool(client, keys, settings.pool_limits(config)),
            patience,
            poll_seconds=config.feed_poll_seconds,
            on_admitted=self._on_admitted,
        )
        self._authenticator = Authenticator(
            KeyStore(client, keys), patience, serve_without_redis_seconds=config.serve_without_redis_seconds
        )
        self._meter = Meter(
            batched,
            keys,
            settings.limit_defaults(config),
            lease_seconds=1.5 * config.answer_seconds,
            serve_without_redis_seconds=config.serve_without_redis_seconds,
        )
        self._receipts = Receipts(
            batched,
            keys,
            self._hash_key,
            idempotency_seconds=config.idempotency_seconds,
            retention_seconds=config.retention_seconds,
        )
        self._intake = Intake(
            Pool(batched, keys, settings.pool_limits(config)),
            scanner,
            settings.rules(config, tokenizer, self._splits),
            self._hash_key,
            patience,
            on_admitted=self._on_admitted,
            queue_bound=config.intake_queue_bound,
            num_workers=INTAKE_WORKERS,
        )
        self._retention = Retention(client, keys, patience, retention_seconds=config.retention_seconds)
        self._erasure = Erasure(client, keys, self._hash_key, patience)
        self._export = UserExport(client, keys, self._hash_key, patience)
        self._desk = Desk(
            self._opener(tokenizer), self._stores(scanner), UserLane(channel), tokenizer, self._afterwards
        )

    def _opener(self, tokenizer: PromptTokenizer) -> Opener:
        return Opener(
            authenticator=self._authenticator,
            hash_key=self._hash_key,
            meter=self._meter,
            receipts=self._receipts,
            tokenizer=tokenizer,
            patience=self._patience,
            limits=settings.opening_limits(self._config),
        )

    def _stores(self, scanner: Scanner) -> Stores:
        config, client, keys = self._config, self._client, self._keys
        return Stores(
            authenticator=self._authenticator,
            hash_key=self._hash_key,
            meter=self._meter,
            receipts=self._receipts,
            intake=self._intake,
            answers=Answers(
                client, keys, scanner, policies=config.pii_policy, retention_seconds=config.retention_seconds
            ),
            feedback=Feedback(
                client,
                keys,
                self._hash_key,
                self._receipts,
                scanner,
                retention_seconds=config.retention_seconds,
                max_correction_bytes=config.max_prompt_bytes,
            ),
            samples=SampleReader(self._ledger, self._receipts, self._patience),
            erasure=self._erasure,
            patience=self._patience,
        )

    async def serve(self) -> None:
        """Until told to stop."""
        background: dict[str, serving.Background] = {
            "lineage": self._check_lineage,
            "authenticator": self._authenticator.run,
            "limits": self._meter.run,
            "intake": self._intake.run,
            "feeder": self._feeder.run,
            "retention": self._retention.run,
            "rollout_reach": RolloutReach(self._channel).run,
            "ledger": self._ledger.export_forever,
            "afterwards": self._afterwards.run,
        }
        if self._config.http_listen is not None:
            front = HttpFront(
                self._desk,
                FrontSettings.of(self._config),
                listen=self._config.http_listen,
                is_ready=self._health.ready_for_users,
                ssl_context=self._http_tls(),
            )
            background["http"] = front.run
        await serving.run_service(
            "gateway", self._config, health=self._health, register=self._register, background=background
        )

    def _http_tls(self) -> ssl.SSLContext | None:
        certificates = self._config.server_certificates("http")
        if certificates is None:
            return None
        return tls.server_context(certificates, need_client_certificate=self._config.needs_client_certificates)

    def _register(self, server: grpc.aio.Server) -> Sequence[str]:
        gateway_pb2_grpc.add_GatewayServiceServicer_to_server(GatewayServicer(self._desk, self._config), server)
        data_pb2_grpc.add_DataServiceServicer_to_server(
            DataServicer(self._erasure, self._export.export, self._desk.authenticate),
            server,
        )
        return [
            gateway_pb2.DESCRIPTOR.services_by_name["GatewayService"].full_name,
            data_pb2.DESCRIPTOR.services_by_name["DataService"].full_name,
        ]

    async def _check_lineage(self, stop: asyncio.Event) -> None:
        """Not ready before it is known that users fall on the sides on which this run has them."""
        self._health.set("lineage", ok=False, reason="not checked yet")

        async def check() -> None:
            await check_lineage(self._client, self._keys, self._splits, await self._hash_key.digests())

        while not stop.is_set():
            try:
                await self._patience("the run's splits", check, give_up_seconds=LINEAGE_SECONDS)
            except Unavailable:
                continue
            self._health.set("lineage", ok=True)
            return
