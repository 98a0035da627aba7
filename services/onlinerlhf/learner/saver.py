"""Acks samples, and only with the checkpoint that contains them.

A step's samples are unsaved until a checkpoint is on disk; then they are acked. A crash before the checkpoint: they are
delivered again and learned again, from weights that do not contain them. A crash between checkpoint and ack: the
checkpoint lists them, and the next start acks them.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

from onlinerlhf.core.errors import CheckpointError, OnlineRLHFError, Unavailable
from onlinerlhf.learner import metrics
from onlinerlhf.learner.checkpoint import CheckpointStore, LearnedSample, Progress
from onlinerlhf.learner.config import LearnerConfig
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.status import Phase, Status
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.streams import Consumer, Delivery

_log = logging.getLogger(__name__)


class Saver:
    """Between the loop and the checkpoints."""

    def __init__(
        self,
        store: CheckpointStore,
        consumer: Consumer,
        config: LearnerConfig,
        status: Status,
        health: Health,
        *,
        refusals: Counter[str],
    ) -> None:
        self._store = store
        self._consumer = consumer
        self._config = config
        self._status = status
        self._health = health
        self._unsaved: dict[str, LearnedSample] = {}
        """Learned since the newest checkpoint, by sample id."""
        self._saved: dict[str, LearnedSample] = {}
        """Of the newest checkpoint, by sample id."""
        self._refusals = refusals
        """Failed steps of this process, by sample id, of the samples that were in them."""
        self._num_unsaved_steps = 0
        self._has_checkpoint = False
        self._next_try = 0.0
        self._requests: list[asyncio.Future[Progress]] = []
        self.seconds = 0.0
        """What the newest checkpoint took."""

    def learned(self, sample_id: str) -> LearnedSample | None:
        """A sample that the newest checkpoint contains."""
        return self._saved.get(sample_id)

    def num_refusals(self, sample_id: str) -> int:
        """Failed steps that the sample was in."""
        return self._refusals[sample_id]

    def is_unsaved(self, sample_id: str) -> bool:
        """Whether a step since the newest checkpoint has learned from it."""
        return sample_id in self._unsaved

    @property
    def must_pause(self) -> bool:
        """Whether learning on would pile up more unsaved steps than allowed."""
        return self._num_unsaved_steps >= max(self._config.checkpoint_every, self._config.max_unsaved_steps)

    def add(self, samples: Iterable[LearnedSample]) -> None:
        """A step has learned from these."""
        for sample in samples:
            self._unsaved[sample.sample_id] = sample
            self._refusals.pop(sample.sample_id, None)
        self._num_unsaved_steps += 1

    async def resume(self, progress: Progress | None) -> None:
        """Ack what the checkpoint contains: the last process may have died before it could."""
        if progress is None:
            return
        self._has_checkpoint = True
        self._saved = {sample.sample_id: sample for sample in progress.samples}
        num_new = await self._ack(progress.samples)
        _log.info("resumed", extra={"step": progress.step, "acked_now": num_new})

    async def save_if_due(self, ppo: PPO, *, idle_seconds: float, is_done: bool) -> None:
        """After enough steps or the last, when asked to, when samples stay away, or to repeat a failed try."""
        is_asked = bool(self._requests)
        is_due = self._num_unsaved_steps >= (1 if is_done else self._config.checkpoint_every)
        is_idle = self._num_unsaved_steps > 0 and idle_seconds >= self._config.checkpoint_idle_seconds
        is_first = not self._has_checkpoint
        may_try = is_asked or self._status.clock() >= self._next_try
        if may_try and (is_asked or is_due or is_idle or is_first):
            await self.save(ppo)

    async def save(self, ppo: PPO) -> bool:
        """Write a checkpoint and ack what it contains. False: it could not be written; nothing was acked."""
        if self._num_unsaved_steps or not self._has_checkpoint:
            self._status.phase = Phase.CHECKPOINTING
            if not await self._write(ppo):
                return False
            self._saved, self._unsaved, self._num_unsaved_steps = self._unsaved, {}, 0
            await self._ack(self._saved.values())
        self._answer(Progress(step=self._status.checkpoint_step, version=self._status.version))
        return True

    async def requested(self) -> Progress:
        """Wait until the loop has saved, as soon as it can. Raises CheckpointError."""
        request: asyncio.Future[Progress] = asyncio.get_running_loop().create_future()
        self._requests.append(request)
        return await request

    def close(self) -> None:
        """Nobody will save any more: those who wait for it are told so."""
        self._refuse(Unavailable("the learner has stopped"))

    async def refuse(self, deliveries: Sequence[Delivery], kind: str, *, max_refusals: int) -> None:
        """A batch that cannot be learned from: its samples are delivered again later, or buried after enough tries.

        Counted here rather than by delivery: that also rises with each restart and lost lease.
        """
        for delivery in deliveries:
            self._refusals[delivery.sample_id] += 1
            if self._refusals[delivery.sample_id] >= max_refusals:
                await self._consumer.dead_letter(delivery, kind)
                del self._refusals[delivery.sample_id]
            else:
                await self._consumer.retry_later(delivery, kind)

    async def _write(self, ppo: PPO) -> bool:
        status = self._status
        started = status.clock()
        progress = Progress(
            step=status.step,
            version=status.version,
            samples=tuple(self._unsaved.values()),
            counters=dict(status.counters),
        )
        try:
            await asyncio.to_thread(self._store.save, ppo, progress)
        except CheckpointError as error:
            self._next_try = status.clock() + self._config.checkpoint_retry_seconds
            status.fail("disk", str(error))
            self._health.set("disk", ok=False, reason=str(error))
            metrics.CHECKPOINT_FAILURES.inc()
            self._refuse(error)
            return False
        self._has_checkpoint = True
        status.checkpoint_step = progress.step
        self.seconds = status.clock() - started
        metrics.CHECKPOINT_SECONDS.observe(self.seconds)
        self._health.set("disk", ok=True)
        status.recover("disk")
        return True

    async def _ack(self, samples: Iterable[LearnedSample]) -> int:
        num_new = 0
        for version, group in groupby(samples, key=lambda sample: sample.version):
            pairs = [(sample.entry_id, sample.sample_id) for sample in group]
            num_new += await self._consumer.finish(pairs, version=version)
        return num_new

    def _answer(self, progress: Progress) -> None:
        requests, self._requests = self._requests, []
        for request in requests:
            if not request.done():
                request.set_result(progress)

    def _refuse(self, error: OnlineRLHFError) -> None:
        requests, self._requests = self._requests, []
        for request in requests:
            if not request.done():
                request.set_exception(type(error)(str(error)))
