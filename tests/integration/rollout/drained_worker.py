"""A rollout worker in a process of its own, served as the room is, whose samples never end."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import SecretStr

from onlinerlhf.core.samples import Rollout, SamplingSpec, Stage
from onlinerlhf.rollout.config import RolloutConfig
from onlinerlhf.rollout.worker import RolloutWorker
from onlinerlhf.runtime import redis, serving
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.streams import Consumer, Streams


class Endless:
    """Says when it begins."""

    version = 1

    async def sample(
        self, prompt_token_ids: Sequence[int], spec: SamplingSpec, *, request_id: str
    ) -> tuple[Rollout, ...]:
        print("sampling", flush=True)
        await asyncio.Event().wait()
        return ()


async def compose(url: str, run_id: str, name: str, drain_seconds: str) -> None:
    """The room without its engine."""
    run, keys, health = RunConfig(id=run_id, redis_url=SecretStr(url)), RunKeys(run_id), Health("rollout")
    config = RolloutConfig(
        model_dir=Path("/nowhere"),
        learner_target="nowhere",
        staging_dir=Path("/nowhere"),
        worker_id=name,
        drain_seconds=float(drain_seconds),
        lease_seconds=1.0,
    )
    async with redis.connect(run) as client:
        patience = redis.Patience(health)
        consumer = Consumer(client, keys, Stage.PROMPTS, name=name, patience=patience, lease_seconds=1.0)
        worker = RolloutWorker(consumer, Streams(client, keys), Endless(), config, refusal=lambda version: "")
        await serving.run_service(
            "rollout", config, health=health, register=lambda server: [], background={"work": worker.run}
        )


if __name__ == "__main__":
    serving.main("rollout", lambda: compose(*sys.argv[1:]))
