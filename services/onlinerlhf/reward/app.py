"""Composition root of the reward room."""

import asyncio
from collections.abc import Sequence

import grpc

from onlinerlhf.core.samples import Stage
from onlinerlhf.reward.config import RewardConfig
from onlinerlhf.reward.engine import RewardEngine, ScoreItem
from onlinerlhf.reward.service import RewardServicer
from onlinerlhf.reward.worker import RewardWorker
from onlinerlhf.runtime import config as configs
from onlinerlhf.runtime import logs, redis, serving, tracing
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.streams import Consumer, Streams
from onlinerlhf.v1 import reward_pb2, reward_pb2_grpc


class SharedScorer:
    """The engine off the event loop, one caller at a time: worker and servicer share it."""

    def __init__(self, engine: RewardEngine) -> None:
        self._engine = engine
        self._turn = asyncio.Lock()

    @property
    def version(self) -> str:
        """Names the reward model's weights."""
        return self._engine.version

    async def score(self, items: Sequence[ScoreItem]) -> list[float]:
        """As RewardEngine.score."""
        async with self._turn:
            job = asyncio.create_task(asyncio.to_thread(self._engine.score, items), name="score")
            try:
                return await asyncio.shield(job)
            except asyncio.CancelledError:
                # The thread goes on whoever has stopped waiting: the turn is over when it is.
                await asyncio.wait([job])
                raise


async def run() -> None:
    """Read the settings, load the model, serve and work until told to stop."""
    run_config, config = configs.load("reward", RewardConfig)
    logs.setup("reward", level=run_config.log_level)
    tracing.setup("reward", run_id=run_config.id)
    health = Health("reward")
    engine = await asyncio.to_thread(
        RewardEngine, config.model_dir, batch_tokens=config.batch_tokens, num_threads=config.num_threads
    )
    scorer = SharedScorer(engine)
    client = redis.connect(run_config)
    keys = RunKeys(run_config.id)
    consumer = Consumer(
        client,
        keys,
        Stage.ROLLOUTS,
        name=config.worker_id,
        patience=redis.Patience(health),
        lease_seconds=config.lease_seconds,
        delivery_limit=config.delivery_limit,
    )
    worker = RewardWorker(consumer, Streams(client, keys), scorer, config)

    def register(server: grpc.aio.Server) -> Sequence[str]:
        servicer = RewardServicer(scorer.score, version=scorer.version, max_items=config.max_items_per_call)
        reward_pb2_grpc.add_RewardServiceServicer_to_server(servicer, server)
        return [reward_pb2.DESCRIPTOR.services_by_name["RewardService"].full_name]

    try:
        await serving.run_service("reward", config, health=health, register=register, background={"worker": worker.run})
    finally:
        await client.aclose()
