"""The loop: collect, step, publish, checkpoint, ack.

[scored] ─read─► Collector ─batch─► PPO.step ─► version + 1 ─► Publisher ─► workers pull it
                                                    │
                                                    └─► Saver: checkpoint with the samples' ids ─► ack

A version's number is taken in Redis before anybody can see its weights, so a number never stands for two sets of
weights: a learner that resumes from before a published version publishes its own under a number above it.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from redis.asyncio import Redis

from onlinerlhf.core.errors import NonFiniteLoss, WeightsRefused
from onlinerlhf.core.samples import Stage
from onlinerlhf.learner import metrics
from onlinerlhf.learner.checkpoint import CheckpointStore, LearnedSample, Progress
from onlinerlhf.learner.collector import Collector, GatheredSample
from onlinerlhf.learner.config import LearnerConfig
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.publisher import Publisher
from onlinerlhf.learner.saver import Saver
from onlinerlhf.learner.status import Phase, Status
from onlinerlhf.learner.step_log import StepLog
from onlinerlhf.learner.step_metrics import StepMetrics
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Patience, command
from onlinerlhf.runtime.streams import Consumer

_log = logging.getLogger(__name__)
CONSUMER_NAME = "learner"
_READ_SECONDS = 0.5
# A sample of this many failed batches is buried: it may be what makes them fail.
_MAX_REFUSALS = 3


class LearnerWorker:
    """One run's learner. `run` may be called again after a failure: it starts from the newest checkpoint."""

    def __init__(
        self,
        *,
        config: LearnerConfig,
        build: Callable[[], PPO],
        redis: Redis,
        keys: RunKeys,
        publisher: Publisher,
        health: Health,
        status: Status,
    ) -> None:
        self._config = config
        self._build = build
        self._redis = redis
        self._keys = keys
        self._patience = Patience(health)
        self._publisher = publisher
        self._health = health
        self._status = status
        self._checkpoints = CheckpointStore(config.output_dir / "checkpoints", keep=config.keep_checkpoints)
        self._step_log = StepLog(Path(config.output_dir) / "steps.jsonl")
        self._is_published = False
        self._next_publish = 0.0
        self._num_failures = 0
        self._refusals: Counter[str] = Counter()
        self.saver: Saver | None = None
        """None until the learner has started, and when it has stopped."""

    async def run(self, stop: asyncio.Event) -> None:
        """Learn until `stop`; then finish the step, save, and hand the rest back."""
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
        try:
            async with consumer:
                await saver.resume(progress)
                self.saver = saver
                await self._start_version(ppo)
                collector = Collector(
                    consumer, self._config, self._status, saver, vocab_size=ppo.policy.config.vocab_size
                )
                await self._learn(ppo, saver, collector, stop)
                await saver.save(ppo)
                await consumer.give_back(collector.deliveries)
        finally:
            self.saver = None
            saver.close()
        self._status.phase = Phase.STOPPED

    def _show(self, progress: Progress) -> None:
        """Go on from what was loaded; later steps are forgotten, but not the version numbers they took."""
        status = self._status
        status.step = status.checkpoint_step = progress.step
        status.version = max(status.version, progress.version)
        status.counters = dict(progress.counters)
        self._step_log.truncate(status.step)

    async def _learn(self, ppo: PPO, saver: Saver, collector: Collector, stop: asyncio.Event) -> None:
        status = self._status
        status.since = status.clock() if status.since is None else status.since
        collecting_since = status.clock()
        while not stop.is_set():
            await saver.save_if_due(ppo, idle_seconds=status.clock() - collecting_since, is_done=self._is_done)
            await self._publish_again(ppo)
            paused = self._pause_reason(saver)
            if paused is not None:
                status.phase = paused
                await _wait(stop, _READ_SECONDS)
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
    def _is_done(self) -> bool:
        return 0 < self._config.max_steps <= self._status.step

    async def _train(
        self, ppo: PPO, saver: Saver, batch: Sequence[GatheredSample], *, collect_seconds: float, stop: asyncio.Event
    ) -> None:
        status = self._status
        staleness = [status.version - sample.oldest_version for sample in batch for _ in sample.rollouts]
        status.phase = Phase.STEPPING
        started = status.clock()
        try:
            found = await asyncio.to_thread(ppo.step, [rollout for sample in batch for rollout in sample.rollouts])
        except torch.AcceleratorError:
            # The device is gone: no batch's fault, and none is to be buried for it.
            raise
        except (NonFiniteLoss, RuntimeError, IndexError) as error:
            await self._refuse_batch(saver, batch, error, stop)
            return
        step_seconds = status.clock() - started
        self._num_failures = 0
        self._health.set("training", ok=True)
        status.recover("training")
        version = await self._take_version()
        status.step, status.version = ppo.num_steps, version
        status.count("trained_rollouts", len(staleness))
        saver.add(
            LearnedSample(
                entry_id=sample.delivery.entry_id, sample_id=sample.delivery.sample_id, version=status.version
            )
            for sample in batch
        )
        publish_seconds = await self._publish(ppo)
        self._report(
            found,
            staleness,
            collect_seconds=collect_seconds,
            step_seconds=step_seconds,
            publish_seconds=publish_seconds,
            checkpoint_seconds=saver.seconds,
        )

    async def _refuse_batch(
        self, saver: Saver, batch: Sequence[GatheredSample], error: Exception, stop: asyncio.Event
    ) -> None:
        """The step was undone. The samples are tried again in other company; the third time they are buried."""
        self._num_failures += 1
        kind = "non_finite_loss" if isinstance(error, NonFiniteLoss) else type(error).__name__
        self._status.fail("training", f"{kind}: {error}")
        metrics.UNDONE_STEPS.labels(kind).inc()
        extra = {"error": kind, "samples": len(batch), "in_a_row": self._num_failures}
        _log.error("step undone", extra=extra, exc_info=error)
        await saver.refuse([sample.delivery for sample in batch], kind, max_refusals=_MAX_REFUSALS)
        if self._num_failures >= _MAX_REFUSALS:
            self._health.set("training", ok=False, reason=f"{self._num_failures} steps in a row: {kind}: {error}")
            self._status.phase = Phase.WAITING
            await _wait(stop, self._config.lease_seconds)

    async def _start_version(self, ppo: PPO) -> None:
        """Offer the policy as it is now: under the number it has if nothing newer was offered, else a new one."""
        await self._publisher.load()
        latest = await self._known_version()
        if latest and await self._publisher.offers(ppo.policy, latest):
            self._status.version = latest
            self._is_published = True
            self._health.set("policy", ok=True)
            await self._write_latest(latest)
        else:
            self._status.version = await self._take_version()
            await self._publish(ppo)
        metrics.VERSION.set(self._status.version)

    async def _take_version(self) -> int:
        """The next number, recorded before its weights can be seen."""
        version = await self._known_version() + 1
        await self._write_latest(version)
        return version

    async def _known_version(self) -> int:
        """The highest number that Redis, the version files, the checkpoint or this process has ever seen."""
        return max(await self._latest_version(), self._publisher.newest_version(), self._status.version)

    async def _latest_version(self) -> int:
        key = self._keys.latest_version
        found = await self._patience("read the latest version", lambda: command(self._redis, "GET", key))
        return int(found or 0)

    async def _write_latest(self, version: int) -> None:
        key = self._keys.latest_version
        await self._patience("write the latest version", lambda: command(self._redis, "SET", key, version))

    async def _publish(self, ppo: PPO) -> float:
        """Offer the status's version. Returns the seconds it took; on failure the older version stays on offer."""
        status = self._status
        status.phase = Phase.PUBLISHING
        started = status.clock()
        try:
            await self._publisher.publish(ppo.policy, status.version)
        except (OSError, WeightsRefused) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._is_published = False
            self._next_publish = status.clock() + self._config.checkpoint_retry_seconds
            status.fail("policy", f"version {status.version} was not published: {reason}")
            self._health.set("policy", ok=False, reason=status.last_error)
            metrics.PUBLISH_FAILURES.inc()
        else:
            self._is_published = True
            self._health.set("policy", ok=True)
            status.recover("policy")
            metrics.PUBLISH_SECONDS.observe(status.clock() - started)
        return status.clock() - started

    async def _publish_again(self, ppo: PPO) -> None:
        if not self._is_published and self._status.clock() >= self._next_publish:
            await self._publish(ppo)

    def _report(self, found: StepMetrics, staleness: Sequence[int], **seconds: float) -> None:
        status = self._status
        numbers: dict[str, float] = {
            "step": status.step,
            "version": status.version,
            "time_seconds": time.time(),
            **asdict(found),
            "staleness_mean": sum(staleness) / len(staleness),
            "staleness_max": max(staleness),
            "dropped_stale": status.counters.get("dropped_stale", 0),
            "malformed": status.counters.get("malformed", 0),
            **seconds,
            "idle_share": status.idle_share,
        }
        status.newest = numbers
        metrics.export_step(numbers)
        for versions in staleness:
            metrics.STALENESS.observe(versions)
        _log.info("step", extra={"numbers": {name: round(number, 5) for name, number in numbers.items()}})
        try:
            self._step_log.append(numbers)
        except OSError as error:
            _log.error("steps.jsonl lacks a step", extra={"step": status.step, "error": error.strerror})


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    """Until `stop`, or for so long."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
