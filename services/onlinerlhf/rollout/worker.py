"""The loop: read [prompts], sample, hand over to [rollouts].

             few in hand? -> at or above the floor? -> room ahead of the learner? -> read
    each:    decode -> slot -> sample -> hand over
               |                  └ failed -> retried later, dead after the delivery limit
               └ cannot be decoded, or no engine could take it -> dead letter at once

A cordon, by which the scaler empties this worker, is Redis' business where samples are read: it gives none. Here it is
told on, so that health keeps users away too.

There is no batch to wait for: max_concurrent_samples have a slot, read_ahead_samples wait for one, and a slot that
becomes free is filled from these in the same moment, without a word to Redis.

Told to stop: what is being sampled may finish, for most of drain_seconds; what waits for a slot, and what did not get
done, is given back, and another worker has it at once.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from onlinerlhf.core.errors import InvalidInput, OnlineRLHFError, Unavailable
from onlinerlhf.core.samples import Rollout, RolloutGroup, SamplingSpec, Stage
from onlinerlhf.rollout import metrics
from onlinerlhf.rollout.config import RolloutConfig
from onlinerlhf.runtime import tracing, wire
from onlinerlhf.runtime.streams import Consumer, Delivery, Streams
from onlinerlhf.runtime.tasks import end, unless

log = logging.getLogger(__name__)

_READ_BLOCK_SECONDS = 0.5
_FLOOR_POLL_SECONDS = 0.1
_CORDON_POLL_SECONDS = 0.25
_GATHER_SECONDS = 0.005
# Of drain_seconds: what is left over is for giving back what did not get done.
_FINISH_SHARE = 0.8
_CANCEL_SHARE = 0.05
_GIVE_BACK_SHARE = 0.1


class Sampler(Protocol):
    """What the worker needs of the engine."""

    @property
    def version(self) -> int:
        """The label."""

    async def sample(
        self, prompt_token_ids: Sequence[int], spec: SamplingSpec, *, request_id: str
    ) -> tuple[Rollout, ...]:
        """All the responses that `spec` asks for, or an error."""


class RolloutWorker:
    """Keeps the engine full of training work."""

    def __init__(
        self,
        consumer: Consumer,
        streams: Streams,
        sampler: Sampler,
        config: RolloutConfig,
        *,
        refusal: Callable[[int], str],
        tell_cordoned: Callable[[bool], None] | None = None,
    ) -> None:
        """tell_cordoned: called again and again with whether this worker is being emptied. None: nobody cares."""
        self._consumer = consumer
        self._streams = streams
        self._sampler = sampler
        self._config = config
        self._refusal = refusal
        self._tell_cordoned = tell_cordoned
        self._spec = config.sampling
        self._tasks: dict[asyncio.Task[None], Delivery] = {}
        self._begun: set[str] = set()
        """Entries that have, or had, a slot."""
        self._slots = asyncio.Semaphore(config.max_concurrent_samples)
        self._num_unsampled = 0
        self._sampled = asyncio.Event()

    @property
    def num_in_flight(self) -> int:
        """Samples read and not handed over yet."""
        return len(self._tasks)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`, then finish what was read, or give it back."""
        # A run that failed may have left tasks that never began, and nobody else takes them off these counts.
        self._tasks.clear()
        self._begun.clear()
        self._num_unsampled = 0
        async with self._consumer, asyncio.TaskGroup() as group:
            cordon = group.create_task(self._watch_cordon(), name="cordon")
            while not stop.is_set():
                room = await self._room(stop)
                if room == 0:
                    continue
                deliveries = await self._consumer.read(max_count=room, block_seconds=_READ_BLOCK_SECONDS, stop=stop)
                if stop.is_set():
                    # Too late to begin with them.
                    await self._give_back(deliveries)
                    break
                for delivery in deliveries:
                    task = group.create_task(self._process(delivery), name=f"sample-{delivery.sample_id}")
                    self._tasks[task] = delivery
                    self._num_unsampled += 1
                    task.add_done_callback(self._done)
            await end([cordon])
            await self._drain()

    async def _watch_cordon(self) -> None:
        """Beside the reading, which may rest for long: for the learner, or for a free slot."""
        while True:
            is_cordoned = await self._consumer.look_for_cordon()
            if self._tell_cordoned is not None:
                self._tell_cordoned(is_cordoned)
            await asyncio.sleep(_CORDON_POLL_SECONDS)

    async def _room(self, stop: asyncio.Event) -> int:
        """How many samples may be read now. 0: after a wait for the engine, the floor or the learner; ask again."""
        free = self._config.max_concurrent_samples + self._config.read_ahead_samples - self._num_unsampled
        if free == 0:
            self._sampled.clear()
            await _first_of(self._sampled, stop)
            # Those that end in the same few steps are replaced by one read.
            await asyncio.sleep(_GATHER_SECONDS)
            return 0
        if self._refusal(self._sampler.version):
            await asyncio.sleep(_FLOOR_POLL_SECONDS)
            return 0
        ahead = await unless(stop, self._num_ahead())
        if ahead is None:
            return 0
        if ahead > 0:
            return min(free, ahead)
        await self._streams.wait_for_room(
            [Stage.ROLLOUTS, Stage.SCORED],
            bound=lambda: self._config.max_samples_ahead - self.num_in_flight,
            what="the learner to catch up",
            stop=stop,
        )
        return 0

    async def _num_ahead(self) -> int:
        """How many more samples may be ahead of the learner."""
        # In flight first: a sample handed over in between counts twice, never not at all. Likewise between the streams.
        in_flight = self.num_in_flight
        backlog = await self._streams.backlog(Stage.ROLLOUTS) + await self._streams.backlog(Stage.SCORED)
        return self._config.max_samples_ahead - in_flight - backlog

    async def _process(self, delivery: Delivery) -> None:
        try:
            group = await self._sample(delivery)
            await self._consumer.hand_over(delivery, wire.dump_group(group))
            metrics.SAMPLES.labels(outcome="sampled").inc()
        except InvalidInput as error:
            metrics.SAMPLES.labels(outcome="dead").inc()
            await self._consumer.dead_letter(delivery, error.reason)
        except OnlineRLHFError as error:
            metrics.SAMPLES.labels(outcome="retried").inc()
            log.warning("sampling failed", extra={"sample_id": delivery.sample_id, "error": type(error).__name__})
            await self._consumer.retry_later(delivery, type(error).__name__)

    async def _sample(self, delivery: Delivery) -> RolloutGroup:
        """Waits for a slot, and leaves it before Redis is told: the next sample is in the engine at once."""
        try:
            prompt = wire.load_prompt(delivery.payload)
            request_id = f"{delivery.sample_id}-{delivery.attempt}"
            async with self._slots:
                self._begun.add(delivery.entry_id)
                attributes: tracing.Attributes = {"sample_id": delivery.sample_id, "version": self._sampler.version}
                with tracing.span("rollout.sample", parent=prompt.traceparent, attributes=attributes):
                    rollouts = await self._sampler.sample(prompt.token_ids, self._spec, request_id=request_id)
        finally:
            self._num_unsampled -= 1
            self._sampled.set()
        return RolloutGroup(prompt=prompt, sampling=self._spec, rollouts=rollouts, worker_id=self._config.worker_id)

    def _done(self, task: asyncio.Task[None]) -> None:
        delivery = self._tasks.pop(task, None)
        if delivery is not None:
            self._begun.discard(delivery.entry_id)

    async def _drain(self) -> None:
        """Let what is being sampled finish; others take the rest, and what does not finish."""
        await self._hand_back(task for task, delivery in self._tasks.items() if delivery.entry_id not in self._begun)
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=self._config.drain_seconds * _FINISH_SHARE)
        await self._hand_back(self._tasks)

    async def _hand_back(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        unfinished = {task: self._tasks[task] for task in tasks}
        if not unfinished:
            return
        for task in unfinished:
            task.cancel()
        await asyncio.wait(unfinished, timeout=self._config.drain_seconds * _CANCEL_SHARE)
        # Of those that moved on in the last moment there is nothing to give back, and the script sees that.
        await self._give_back(list(unfinished.values()))

    async def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        try:
            await self._consumer.give_back(deliveries, give_up_seconds=self._config.drain_seconds * _GIVE_BACK_SHARE)
            log.info("gave back unfinished samples", extra={"count": len(deliveries)})
        except Unavailable as error:
            # Nothing is lost: nobody renews these leases any more, and others take over when they have run out.
            log.warning("samples not given back", extra={"count": len(deliveries), "reason": str(error)})


async def _first_of(*events: asyncio.Event) -> None:
    """Until any of the events is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
