"""Scored samples to learn from, and a learner in this process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from random import Random

from redis.asyncio import Redis

from integration.streams.support import put
from onlinerlhf.core.samples import (
    FinishReason,
    Rollout,
    RolloutGroup,
    SamplingSpec,
    ScoredGroup,
    Stage,
    VersionSpan,
)
from onlinerlhf.core.weights import Line
from onlinerlhf.learner.checkpoint import Progress
from onlinerlhf.learner.config import LearnerConfig
from onlinerlhf.learner.lines import open_lines
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.status import Status
from onlinerlhf.learner.worker import LearnerWorker
from onlinerlhf.runtime import wire
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.keys import RunKeys
from prompts import a_prompt
from unit.learner.tiny import VOCAB, tiny_ppo


def scored_group(
    sample_id: str, *, version: int = 1, num_responses: int = 1, token: int = 7, score: float = 0.5
) -> ScoredGroup:
    """A sample of a few tokens whose last version span is newer than its first."""
    draw = Random(sample_id)
    rollouts = []
    for _ in range(num_responses):
        length = draw.randint(2, 8)
        rollouts.append(
            Rollout(
                token_ids=(token, *(draw.randrange(3, VOCAB) for _ in range(length - 1))),
                behaviour_logprobs=tuple(draw.uniform(-5, -3) for _ in range(length)),
                version_spans=(
                    VersionSpan(version=version, num_tokens=1),
                    VersionSpan(version=version + 1, num_tokens=length - 1),
                ),
                finish_reason=FinishReason.EOS,
            )
        )
    prompt = a_prompt(
        sample_id=sample_id,
        prompt_id=sample_id.partition(".")[0],
        text="not to be seen",
        token_ids=tuple(draw.randrange(3, VOCAB) for _ in range(draw.randint(2, 10))),
    )
    return ScoredGroup(
        group=RolloutGroup(
            prompt=prompt,
            sampling=SamplingSpec(num_responses=num_responses, max_tokens=8),
            rollouts=tuple(rollouts),
            worker_id="worker",
        ),
        scores=tuple(score + draw.gauss(0, 1) for _ in range(num_responses)),
        reward_model_version="reward-model",
    )


class Source:
    """Puts samples into [scored] as the reward worker would."""

    def __init__(self, client: Redis, keys: RunKeys) -> None:
        self._client = client
        self._keys = keys

    async def put(self, sample_id: str, payload: bytes) -> None:
        await put(self._client, self._keys, sample_id, payload, stage=Stage.SCORED)

    async def put_scored(self, sample_ids: Sequence[str], **settings: float) -> None:
        for sample_id in sample_ids:
            await self.put(sample_id, wire.dump_scored(scored_group(sample_id, **settings)))  # type: ignore[arg-type]


def learner_config(output_dir: Path, **settings: object) -> LearnerConfig:
    """Batches of four, in two minibatches, and short waits."""
    return LearnerConfig.model_validate(
        {
            "policy_dir": "unused",
            "reward_dir": "unused",
            "output_dir": output_dir,
            "batch_size": 4,
            "num_minibatches": 2,
            "max_staleness": 1000,
            "checkpoint_idle_seconds": 0.3,
            "checkpoint_retry_seconds": 0.1,
            "keep_checkpoints": 1000,
            **settings,
        }
    )


class RunningLearner:
    """A worker's loop in this process."""

    def __init__(
        self, client: Redis, keys: RunKeys, config: LearnerConfig, build: Callable[[], PPO] | None = None
    ) -> None:
        self.health = Health("learner")
        self.status = Status(batch_size=config.batch_size)
        self.lines = open_lines(config)
        self.publisher = self.lines.publishers[Line.POLICY]
        self.stop = asyncio.Event()
        self.worker = LearnerWorker(
            config=config,
            build=build or tiny_ppo,
            redis=client,
            keys=keys,
            lines=self.lines,
            health=self.health,
            status=self.status,
        )

    async def checkpoint(self) -> Progress:
        assert self.worker.saver is not None
        return await self.worker.saver.requested()

    async def until(self, condition: Callable[[], bool], *, seconds: float = 30) -> None:
        """Wait for a condition; the time-out shows the status."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():  # noqa: ASYNC110 - the status is polled by its users too
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"not reached: {self.status}, {self.health.components()}") from None


@contextlib.asynccontextmanager
async def learning(
    client: Redis, keys: RunKeys, config: LearnerConfig, build: Callable[[], PPO] | None = None
) -> AsyncIterator[RunningLearner]:
    """Runs a learner; drains it at the end."""
    learner = RunningLearner(client, keys, config, build)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(learner.worker.run(learner.stop), name="learner")
        try:
            yield learner
        finally:
            learner.stop.set()
            async with asyncio.timeout(30):
                await asyncio.wait([task])
