"""The loop: collect, step, publish, checkpoint, ack.

[scored] ─read─► Collector ─batch─► PPO.step ─► version + 1 ─► Offering ─► workers pull it
                                                    │
                                                    └─► Saver: checkpoint with the samples' ids ─► ack

A step that fails is undone and its samples are tried again. Where steps keep coming out as NaN or infinity the recipe
is at fault, not the samples: the learner gives them back and stays at its newest checkpoint.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import chain

import torch
from redis.asyncio import Redis

from onlinerlhf.core.errors import NonFiniteLoss
from onlinerlhf.core.samples import Stage
from onlinerlhf.learner import metrics
from onlinerlhf.learner.checkpoint import CheckpointStore, LearnedSample, Progress
from onlinerlhf.learner.collector import Collector, GatheredSample
from onlinerlhf.learner.config import LearnerConfig
from onlinerlhf.learner.lines import WeightLines
from onlinerlhf.learner.offering import Offering
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.saver import Saver
from onlinerlhf.learner.status import Phase, Status
from onlinerlhf.learner.step_metrics import StepMetrics
from onlinerlhf.learner.step_records import StepRecords
from onlinerlhf.runtime import tracing
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Patience
from onlinerlhf.runtime.streams import Consumer, Delivery
from onlinerlhf.runtime.tasks import set_within

_log = logging.getLogger(__name__)
CONSUMER_NAME = "learner"
_READ_SECONDS = 0.5
# A sample of this many failed batches is buried: it may be what makes them fail.
_MAX_REFUSALS = 3
# So many steps in a row that are not finite are no accident.
_MAX_NON_FINITE = 3


class LearnerWorker:
    """One run's learner. `run` may be called again after a failure: it starts from the newest checkpoint."""

    def __init__(
        self,
        *,
        config: LearnerConfig,
        build: Callable[[], PPO],
        redis: Redis,
        keys: RunKeys,
        lines: WeightLines,
        health: Health,
        status: Status,
    ) -> None:
        self._config = config
        self._build = build
        self._redis = redis
        self._keys = keys
        self._patience = Patience(health)
        self._offering = Offering(
            lines,
            redis=redis,
            keys=keys,
            patience=self._patience,
            status=status,
            health=health,
            retry_seconds=config.checkpoint_retry_seconds,
        )
        self._health = health
        self._status = status
        self._checkpoints = CheckpointStore(config.output_dir / "checkpoints", keep=config.keep_checkpoints)
        self._records = StepRecords(config.output_dir, config=config.model_dump(mode="json"))
        self._num_failures = 0
        self._non_finite: list[list[Delivery]] = []
        """The batches of the newest steps, where those were not finite."""
        self._refusals: Counter[str] = Counter()
        self.saver: Saver | None = None
        """None until the learner has started, and when it has stopped."""

    async def run(self, stop: asyncio.Event) -> None:
        """Learn until `stop`; then finish the step, save, and hand the rest back.

        Diverged, the learner hands everything back at once and only serves what it has, until `stop`.
        """
        self._health.set("policy", ok=False, reason="loading")
        ppo = await asyncio.to_thread(self._build)
        progress = await asyncio.to_thread(self._checkpoints.load, ppo)
        consumer = Consumer(
            self._redis,
            self._keys,
            Stage.SCORED,
            name=CONSUMER_NAME,
            patience=self._patience,
            lease_seconds=self._config.lease_seconds,
            delivery_limit=None,
        )
        saver = Saver(self._checkpoints, consumer, self._config, self._status, self._health, refusals=self._refusals)
        self._show(progress or Progress())
        self._non_finite.clear()
        await asyncio.to_thread(self._records.resume, self._status.step)
        try:
            async with consumer:
                await saver.resume(progress)
                await consumer.forget_in_training()
                self.saver = saver
                await self._offering.start(ppo)
                collector = Collector(
                    consumer, self._config, self._status, saver, vocab_size=ppo.policy.config.vocab_size
                )
                await self._learn(ppo, saver, collector, stop)
                if self._has_diverged:
                    # With the samples of steps that no checkpoint contains.
                    await consumer.give_back([*consumer.held_deliveries, *chain(*self._non_finite)])
                else:
                    await saver.save(ppo)
                    await consumer.give_back(collector.deliveries)
        finally:
            self.saver = None
            saver.close()
            await asyncio.to_thread(self._records.close)
        self._status.phase = Phase.STOPPED
        self._status.num_collected = 0
        await stop.wait()

    def _show(self, progress: Progress) -> None:
        """Go on from what was loaded; later steps are forgotten, but not the version numbers they took."""
        status = self._status
        status.step = status.checkpoint_step = progress.step
        status.version = max(status.version, progress.version)
        status.counters = dict(progress.counters)

    async def _learn(self, ppo: PPO, saver: Saver, collector: Collector, stop: asyncio.Event) -> None:
        status = self._status
        status.since = status.clock() if status.since is None else status.since
        collecting_since = status.clock()
        while not (stop.is_set() or self._has_diverged):
            await saver.save_if_due(ppo, idle_seconds=status.clock() - collecting_since, is_done=self._is_done)
            await self._offering.offer_again(ppo)
            paused = self._pause_reason(saver)
            if paused is not None:
                status.phase = paused
                await set_within(stop, _READ_SECONDS)
                collecting_since = status.clock()
                continue
            status.phase = Phase.COLLECTING
            await collector.fill(block_seconds=_READ_SECONDS)
            batch = await collector.take(status.version)
            if batch:
                collect_seconds = status.clock() - collecting_since
                status.collecting_seconds += collect_seconds
                await self._train(ppo, saver, batch, collect_seconds=collect_seconds, stop=stop)
                collecting_since = status.clock()

    def _pause_reason(self, saver: Saver) -> Phase | None:
        if saver.must_pause:
            return Phase.WAITING
        return Phase.DONE if self._is_done else None

    @property
    def _has_diverged(self) -> bool:
        return len(self._non_finite) >= _MAX_NON_FINITE

    @property
    def _is_done(self) -> bool:
        return 0 < self._config.max_steps <= self._status.step

    async def _train(
        self, ppo: PPO, saver: Saver, batch: Sequence[GatheredSample], *, collect_seconds: float, stop: asyncio.Event
    ) -> None:
        status = self._status
        staleness = [status.version - sample.oldest_version for sample in batch for _ in sample.rollouts]
        rollouts = [replace(rollout, group=at) for at, sample in enumerate(batch) for rollout in sample.rollouts]
        status.phase = Phase.STEPPING
        started = status.clock()
        try:
            links = [sample.traceparent for sample in batch]
            with tracing.span("learner.step", links=links, attributes={"version": status.version}):
                found = await asyncio.to_thread(ppo.step, rollouts)
        except torch.AcceleratorError:
            # The device is gone: no batch's fault, and none is to be buried for it.
            raise
        except NonFiniteLoss as error:
            await self._skip_step(saver, batch, error)
            return
        except (RuntimeError, IndexError) as error:
            await self._refuse_batch(saver, batch, error, stop)
            return
        step_seconds = status.clock() - started
        self._num_failures = 0
        self._non_finite.clear()
        self._health.set("training", ok=True)
        status.recover("training")
        version = await self._offering.take_version()
        status.step, status.version = ppo.num_steps, version
        status.count("trained_rollouts", len(staleness))
        saver.add(
            LearnedSample(
                entry_id=sample.delivery.entry_id, sample_id=sample.delivery.sample_id, version=status.version
            )
            for sample in batch
        )
        publish_seconds = await self._offering.offer(ppo)
        await self._report(
            found,
            staleness,
            collect_seconds=collect_seconds,
            step_seconds=step_seconds,
            publish_seconds=publish_seconds,
            checkpoint_seconds=saver.seconds,
        )

    async def _skip_step(self, saver: Saver, batch: Sequence[GatheredSample], error: NonFiniteLoss) -> None:
        """The step was undone. Once is a batch's fault, and it is tried again; several in a row are the recipe's."""
        kind = "non_finite_loss"
        self._undone(batch, kind, error)
        self._status.count("skipped_steps")
        self._non_finite.append([sample.delivery for sample in batch])
        if not self._has_diverged:
            await saver.refuse(self._non_finite[-1], kind, max_refusals=_MAX_REFUSALS)
            return
        reason = (
            f"stopped at the checkpoint of step {self._status.checkpoint_step}: {len(self._non_finite)} steps in a row "
            f"were undone ({error}); lower learning_rate and value_learning_rate, look at the last lines of "
            "steps.jsonl, and restart the learner"
        )
        self._status.fail("training", reason)
        self._health.set("training", ok=False, reason=reason)

    def _undone(self, batch: Sequence[GatheredSample], kind: str, error: Exception) -> None:
        self._num_failures += 1
        self._status.fail("training", f"{kind}: {error}")
        metrics.UNDONE_STEPS.labels(kind).inc()
        extra = {"error": kind, "samples": len(batch), "in_a_row": self._num_failures}
        _log.error("step undone", extra=extra, exc_info=error)

    async def _refuse_batch(
        self, saver: Saver, batch: Sequence[GatheredSample], error: Exception, stop: asyncio.Event
    ) -> None:
        """The step was undone. The samples are tried again in other company; the third time they are buried."""
        kind = type(error).__name__
        self._undone(batch, kind, error)
        await saver.refuse([sample.delivery for sample in batch], kind, max_refusals=_MAX_REFUSALS)
        if self._num_failures >= _MAX_REFUSALS:
            self._health.set("training", ok=False, reason=f"{self._num_failures} steps in a row: {kind}: {error}")
            self._status.phase = Phase.WAITING
            await set_within(stop, self._config.lease_seconds)

    async def _report(self, found: StepMetrics, staleness: Sequence[int], **seconds: float) -> None:
        status = self._status
        numbers: dict[str, float] = {
            "step": status.step,
            "version": status.version,
            "time_seconds": time.time(),
            **{name: number for name, number in asdict(found).items() if number is not None},
            "staleness_mean": sum(staleness) / len(staleness),
            "staleness_max": max(staleness),
            "dropped_stale": status.counters.get("dropped_stale", 0),
            "malformed": status.counters.get("malformed", 0),
            "skipped_steps": status.counters.get("skipped_steps", 0),
            **seconds,
            "idle_share": status.idle_share,
        }
        status.newest = numbers
        for versions in staleness:
            metrics.STALENESS.observe(versions)
        _log.info("step", extra={"numbers": {name: round(number, 5) for name, number in numbers.items()}})
        await asyncio.to_thread(self._records.add, numbers)
