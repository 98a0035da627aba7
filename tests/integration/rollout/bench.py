"""A rollout worker with a made-up sampler on a real Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from redis.asyncio import Redis

from integration.streams.support import eventually, put
from onlinerlhf.core.samples import FinishReason, Rollout, SamplingSpec, Stage, VersionSpan
from onlinerlhf.rollout.admission import show_cordon
from onlinerlhf.rollout.config import RolloutConfig
from onlinerlhf.rollout.worker import RolloutWorker
from onlinerlhf.runtime import wire
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Patience
from onlinerlhf.runtime.streams import Consumer, Streams
from prompts import a_prompt


@dataclass
class FakeSampler:
    """Answers at once, or when the test says so."""

    version: int = 1
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    in_flight: int = 0
    most_in_flight: int = 0
    asked: list[str] = field(default_factory=list)
    trouble: Callable[[Sequence[int]], Exception | None] = lambda prompt: None

    async def sample(
        self, prompt_token_ids: Sequence[int], spec: SamplingSpec, *, request_id: str
    ) -> tuple[Rollout, ...]:
        self.asked.append(request_id)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.may_answer.wait()
        finally:
            self.in_flight -= 1
        if (error := self.trouble(prompt_token_ids)) is not None:
            raise error
        rollout = Rollout(
            token_ids=(7, 8),
            behaviour_logprobs=(-0.5, -1.5),
            version_spans=(VersionSpan(version=self.version, num_tokens=2),),
            finish_reason=FinishReason.EOS,
        )
        return (rollout,) * spec.num_responses


@dataclass
class Bench:
    """A worker that runs, and its surroundings."""

    client: Redis
    keys: RunKeys
    sampler: FakeSampler
    worker: RolloutWorker
    streams: Streams
    stop: asyncio.Event
    health: Health
    refusal: str = ""

    async def put(self, *sample_ids: str, payload: bytes | None = None) -> None:
        for sample_id in sample_ids:
            data = wire.dump_prompt(a_prompt(sample_id=sample_id)) if payload is None else payload
            await put(self.client, self.keys, sample_id, data, stage=Stage.PROMPTS)

    async def has(self, stage: Stage, count: int) -> None:
        async def check() -> bool:
            return await self.streams.backlog(stage) == count

        await eventually(check)

    async def asked(self, count: int) -> None:
        async def check() -> bool:
            return len(self.sampler.asked) == count

        await eventually(check)


@asynccontextmanager
async def bench(
    client: Redis, keys: RunKeys, health_patience: Patience, directory: Path, **settings: float
) -> AsyncIterator[Bench]:
    config = RolloutConfig.model_validate(
        {"model_dir": directory, "learner_target": "nowhere", "staging_dir": directory, **settings}
    )
    streams = Streams(client, keys, patience=health_patience)
    await streams.ensure_groups()
    consumer = Consumer(
        client, keys, Stage.PROMPTS, name="rollout-0", patience=health_patience, lease_seconds=config.lease_seconds
    )
    sampler = FakeSampler()
    surroundings: list[Bench] = []
    health = Health("rollout")
    worker = RolloutWorker(
        consumer,
        streams,
        sampler,
        config,
        refusal=lambda version: surroundings[0].refusal,
        tell_cordoned=partial(show_cordon, health),
    )
    surroundings.append(Bench(client, keys, sampler, worker, streams, asyncio.Event(), health))
    running = asyncio.create_task(worker.run(surroundings[0].stop), name="worker")
    try:
        yield surroundings[0]
    finally:
        surroundings[0].stop.set()
        sampler.may_answer.set()
        async with asyncio.timeout(10):
            await running
