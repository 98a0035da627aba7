"""The loop: read [rollouts], score, hand over to [scored].

read -> decode -> score a batch -> hand over each
          |            └ the batch fails -> each group alone: retried later, dead after the delivery limit
          └ cannot be decoded or read by the model -> dead letter at once
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from onlinerlhf.core.errors import InvalidInput, OnlineRLHFError
from onlinerlhf.core.samples import RolloutGroup, ScoredGroup, Stage
from onlinerlhf.reward.config import RewardConfig
from onlinerlhf.reward.engine import ScoreItem
from onlinerlhf.runtime import tracing, wire
from onlinerlhf.runtime.streams import Consumer, Delivery, Streams

log = logging.getLogger(__name__)


class Scorer(Protocol):
    """What the worker needs of the engine."""

    @property
    def version(self) -> str:
        """Names the reward model's weights."""

    async def score(self, items: Sequence[ScoreItem]) -> list[float]:
        """One finite score an item, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    delivery: Delivery
    group: RolloutGroup
    items: tuple[ScoreItem, ...]


class RewardWorker:
    """Scores whatever waits in [rollouts]."""

    def __init__(self, consumer: Consumer, streams: Streams, scorer: Scorer, config: RewardConfig) -> None:
        self._consumer = consumer
        self._streams = streams
        self._scorer = scorer
        self._config = config

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`; what was read is finished first."""
        async with self._consumer:
            while not stop.is_set():
                await self._streams.wait_for_room(
                    [Stage.SCORED], bound=self._config.scored_bound, what="room in [scored]", stop=stop
                )
                if stop.is_set():
                    return
                deliveries = await self._consumer.read(max_count=self._config.max_groups_per_read, block_seconds=1.0)
                await self._process(deliveries)

    async def _process(self, deliveries: Sequence[Delivery]) -> None:
        work = [item for delivery in deliveries if (item := await self._decode(delivery)) is not None]
        if not work:
            return
        try:
            await self._score(work)
        except OnlineRLHFError:
            # One bad group must not take its neighbours with it.
            for item in work:
                await self._score_alone(item)

    async def _decode(self, delivery: Delivery) -> _Work | None:
        try:
            group = wire.load_group(delivery.payload)
        except InvalidInput as error:
            await self._consumer.dead_letter(delivery, error.reason)
            return None
        prompt = group.prompt.token_ids
        items = tuple(
            ScoreItem(prompt_token_ids=prompt, response_token_ids=rollout.token_ids) for rollout in group.rollouts
        )
        return _Work(delivery=delivery, group=group, items=items)

    async def _score_alone(self, work: _Work) -> None:
        try:
            await self._score([work])
        except InvalidInput as error:
            await self._consumer.dead_letter(work.delivery, error.reason)
        except OnlineRLHFError as error:
            log.warning("scoring failed", extra={"sample_id": work.delivery.sample_id, "error": type(error).__name__})
            await self._consumer.retry_later(work.delivery, type(error).__name__)

    async def _score(self, work: Sequence[_Work]) -> None:
        current = [tracing.begin("reward.score", parent=each.group.prompt.traceparent) for each in work]
        try:
            scores = iter(await self._scorer.score([item for each in work for item in each.items]))
        finally:
            for each_span, each in zip(current, work, strict=True):
                each_span.end(attributes={"sample_id": each.delivery.sample_id})
        for each in work:
            scored = ScoredGroup(
                group=each.group,
                scores=tuple(next(scores) for _ in each.items),
                reward_model_version=self._scorer.version,
            )
            await self._consumer.hand_over(each.delivery, wire.dump_scored(scored))
