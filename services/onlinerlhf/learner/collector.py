"""Gathers scored samples into batches. What cannot be learned from leaves here, with a reason.

read -> known already (its checkpoint holds it) -> acked
     -> cannot be decoded or learned from       -> dead letter at once
     -> waits here -> too far behind the learner, or ahead of it, when its batch is made -> dropped, stale
                   -> its owner withdrew consent or was erased meanwhile                 -> gone
                   -> part of a batch
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

from onlinerlhf.algorithms.batching import ScoredRollout
from onlinerlhf.core.errors import InvalidInput, MalformedRecord
from onlinerlhf.core.samples import DropReason, FinishReason, ScoredGroup
from onlinerlhf.learner.config import LearnerConfig
from onlinerlhf.learner.saver import Saver
from onlinerlhf.learner.status import Status
from onlinerlhf.runtime import wire
from onlinerlhf.runtime.streams import Consumer, Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class GatheredSample:
    """A sample in hand, decoded."""

    delivery: Delivery
    oldest_version: int
    rollouts: tuple[ScoredRollout, ...]
    gathered_at: float
    """By the status's clock."""
    traceparent: str
    """Of the submission or answer that its prompt came with; empty where nothing traces."""


class Collector:
    """Holds what was read and not yet trained on."""

    def __init__(
        self,
        consumer: Consumer,
        config: LearnerConfig,
        status: Status,
        saver: Saver,
        *,
        vocab_size: int,
    ) -> None:
        self._consumer = consumer
        self._config = config
        self._status = status
        self._vocab_size = vocab_size
        self._saver = saver
        self._waiting: deque[GatheredSample] = deque()
        self._group_size = 1
        """Rollouts of the newest sample: how many samples make a batch is guessed from it."""

    @property
    def deliveries(self) -> list[Delivery]:
        """What is held here, to be given back at a drain."""
        return [sample.delivery for sample in self._waiting]

    async def fill(self, *, block_seconds: float) -> None:
        """Read towards a batch: what there is, or after the wait nothing."""
        missing = self._config.batch_size - self._num_rollouts()
        if missing <= 0:
            return
        max_count = math.ceil(missing / self._group_size)
        for delivery in await self._consumer.read(max_count=max_count, block_seconds=block_seconds):
            await self._take_in(delivery)
        self._waiting = deque(sorted(self._waiting, key=self._turn))
        self._status.num_collected = self._num_rollouts()

    async def take(self, version: int) -> list[GatheredSample]:
        """A batch fit for the learner's present version, or [] while there is none."""
        await self._drop_stale(version)
        if self._wanted():
            # Of all that wait, so that what is left out is made up for from what is there.
            await self._let_go_of_blocked()
        wanted = self._wanted()
        batch: list[GatheredSample] = []
        num_rollouts = 0
        while wanted and num_rollouts < wanted:
            sample = self._waiting.popleft()
            batch.append(sample)
            num_rollouts += len(sample.rollouts)
        self._status.num_collected = self._num_rollouts()
        return batch

    def _wanted(self) -> int:
        """How many rollouts to train on now; 0: wait."""
        there = self._num_rollouts()
        if there >= self._config.batch_size:
            return self._config.batch_size
        if there == 0 or not self._config.max_wait_seconds:
            return 0
        waited_seconds = self._status.clock() - min(sample.gathered_at for sample in self._waiting)
        return there if waited_seconds >= self._config.max_wait_seconds else 0

    def _turn(self, sample: GatheredSample) -> tuple[bool, tuple[int, int]]:
        """Batches are formed in the stream's order, whatever was delivered again and when: so a learner that resumes
        forms those that an uninterrupted one would have formed.

        But of a batch that failed, every other sample goes behind what follows it, and at each failure others: so the
        one that makes them fail is soon in other company.
        """
        sample_id = sample.delivery.sample_id
        num_refusals = self._saver.num_refusals(sample_id)
        goes_behind = num_refusals > 0 and crc32(f"{sample_id}/{num_refusals}".encode()) % 2 == 1
        return goes_behind, _place(sample.delivery.entry_id)

    async def _take_in(self, delivery: Delivery) -> None:
        if self._saver.is_unsaved(delivery.sample_id) or self._is_waiting(delivery.sample_id):
            # Delivered again after a lease was lost. It is acked, or not, as what is in hand already.
            return
        learned = self._saver.learned(delivery.sample_id)
        if learned is not None:
            await self._consumer.finish([(delivery.entry_id, delivery.sample_id)], version=learned.version)
            return
        try:
            scored = wire.load_scored(delivery.payload)
            min_responses = 1 if self._config.has_critic else 2
            rollouts = scored_rollouts(scored, vocab_size=self._vocab_size, min_responses=min_responses)
        except InvalidInput as error:
            await self._consumer.dead_letter(delivery, error.reason)
            self._status.count("malformed")
            return
        self._group_size = len(rollouts)
        self._waiting.append(
            GatheredSample(
                delivery=delivery,
                oldest_version=scored.group.oldest_version,
                rollouts=rollouts,
                gathered_at=self._status.clock(),
                traceparent=scored.group.prompt.traceparent,
            )
        )

    async def _drop_stale(self, version: int) -> None:
        fresh: deque[GatheredSample] = deque()
        while self._waiting:
            sample = self._waiting.popleft()
            # Only another lineage of weights has versions that this learner has not reached.
            if 0 <= version - sample.oldest_version <= self._config.max_staleness:
                fresh.append(sample)
            elif await self._consumer.drop(sample.delivery, DropReason.STALE):
                self._status.count("dropped_stale")
        self._waiting = fresh

    async def _let_go_of_blocked(self) -> None:
        usable = await self._consumer.confirm(self.deliveries)
        if len(usable) < len(self._waiting):
            entries = {delivery.entry_id for delivery in usable}
            self._waiting = deque(sample for sample in self._waiting if sample.delivery.entry_id in entries)

    def _is_waiting(self, sample_id: str) -> bool:
        return any(sample.delivery.sample_id == sample_id for sample in self._waiting)

    def _num_rollouts(self) -> int:
        return sum(len(sample.rollouts) for sample in self._waiting)


def scored_rollouts(scored: ScoredGroup, *, vocab_size: int, min_responses: int = 1) -> tuple[ScoredRollout, ...]:
    """What PPO needs of a sample. Raises InvalidInput for what the learner cannot learn from."""
    sampling, prompt_ids = scored.group.sampling, scored.group.prompt.token_ids
    if len(scored.group.rollouts) < min_responses:
        # Without a value network a response is weighed against the others to its prompt.
        raise InvalidInput(
            f"a sample of {len(scored.group.rollouts)} responses, learnable is {min_responses} or more: "
            "raise rollout.num_responses",
            reason="group_size",
        )
    if sampling.top_p != 1.0:
        # The sampler's logprobs would lack log(kept mass), and the ratio would be off by it.
        raise InvalidInput(f"sampled with top_p {sampling.top_p}, learnable is 1", reason="top_p")
    if not (math.isfinite(sampling.temperature) and sampling.temperature > 0):
        raise InvalidInput(f"sampled at temperature {sampling.temperature}, learnable is > 0", reason="temperature")
    if not prompt_ids:
        raise MalformedRecord("a sample without prompt tokens")
    _check_tokens(prompt_ids, vocab_size)
    rollouts = []
    for rollout, score in zip(scored.group.rollouts, scored.scores, strict=True):
        _check_tokens(rollout.token_ids, vocab_size)
        rollouts.append(
            ScoredRollout(
                prompt_ids=prompt_ids,
                response_ids=rollout.token_ids,
                behaviour_logprobs=rollout.behaviour_logprobs,
                score=score,
                temperature=sampling.temperature,
                is_finished=rollout.finish_reason is not FinishReason.LENGTH,
            )
        )
    return tuple(rollouts)


def _place(entry_id: str) -> tuple[int, int]:
    """Of an entry in its stream: ids are milliseconds and a counter."""
    milliseconds, _, counter = entry_id.partition("-")
    return int(milliseconds), int(counter)


def _check_tokens(token_ids: Sequence[int], vocab_size: int) -> None:
    if min(token_ids) < 0 or max(token_ids) >= vocab_size:
        raise InvalidInput(f"a token id lies outside the vocabulary of {vocab_size}", reason="token_id")
