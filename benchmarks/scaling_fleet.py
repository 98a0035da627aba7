"""Rollout workers in steps of a second: they start, read, sample, drain; a policy says how many there should be.

A worker reads as rollout/worker.py does: whoever is woken first takes the prompt, up to its slots and its read-ahead,
and what it has read ahead waits for a slot of its own. A cordoned worker reads nothing. One told to stop hands back
what has no slot, finishes the rest for DRAIN_SECONDS, and then hands back what is left, which is sampled again from the
start. A worker costs its GPU from the moment it is asked for until it is gone.
"""

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scaling_traffic import DAY_SECONDS, Day

START_SECONDS = 90
DRAIN_SECONDS = 60
SLOTS = 64
READ_AHEAD = 64
MIN_REPLICAS = 1
MAX_REPLICAS = 40
TAIL_SECONDS = 3600
"""After the day, for what still waits. Costs nothing."""


@dataclass(slots=True, eq=False)
class SimWorker:
    """One pod."""

    name: str
    ready_at: int
    slots: set[int] = field(default_factory=set)
    """Prompts being sampled."""
    ahead: deque[int] = field(default_factory=deque)
    """Prompts read, without a slot yet."""
    cordoned: bool = False
    gone: bool = False

    @property
    def num_in_hand(self) -> int:
        """Leased entries."""
        return len(self.slots) + len(self.ahead)


class Policy(Protocol):
    """An autoscaler."""

    least_busy_first: bool
    """Whether it has the emptied and the least busy workers end first (pod-deletion-cost). Otherwise the youngest."""

    def size(self, fleet: "Fleet") -> int:
        """Replicas wanted now; asked every second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A simulated day."""

    waits: NDArray[np.int64]  # [N] seconds from arrival to the start of the sampling that was kept
    gpu_hours: float
    num_starts: int
    num_repeated: int
    """Prompts handed back and sampled again."""
    num_stopped_with_work: int
    """Workers told to stop that held prompts."""
    sizes: NDArray[np.int64]  # [DAY_SECONDS] workers that cost a GPU


class Fleet:
    """A pool, its prompts and the clock."""

    def __init__(self, day: Day, *, seed: int) -> None:
        self.now = 0
        self.waiting: deque[int] = deque()
        """Undelivered."""
        self.workers: list[SimWorker] = []
        """Those that the Deployment counts: starting or ready."""
        self._draining: list[tuple[int, SimWorker]] = []
        self._arrivals: list[int] = day.arrivals.tolist()
        self._services: list[int] = day.services.tolist()
        self._waits = np.zeros(len(self._arrivals), dtype=np.int64)
        self._due: list[list[tuple[SimWorker, int]]] = [[] for _ in range(DAY_SECONDS + TAIL_SECONDS + 200)]
        self._draw = random.Random(seed)
        self.num_starts = self.num_repeated = self.num_sampled = self.num_stopped_with_work = 0

    @property
    def ready(self) -> list[SimWorker]:
        """Workers that read."""
        return [worker for worker in self.workers if worker.ready_at <= self.now]

    @property
    def num_in_flight(self) -> int:
        """Leased by any worker, also by one that drains."""
        draining = sum(worker.num_in_hand for _, worker in self._draining)
        return draining + sum(worker.num_in_hand for worker in self.workers)

    @property
    def num_costing(self) -> int:
        """Workers that have a GPU: starting, ready or draining."""
        return len(self.workers) + len(self._draining)

    def run(self, policy: Policy) -> Outcome:
        """The whole day."""
        for _ in range(MIN_REPLICAS):
            self._start_worker(ready_at=0)
        sizes = np.zeros(DAY_SECONDS, dtype=np.int64)
        arrived, num_prompts = 0, len(self._arrivals)
        for now in range(DAY_SECONDS + TAIL_SECONDS):
            self.now = now
            while arrived < num_prompts and self._arrivals[arrived] == now:
                self.waiting.append(arrived)
                arrived += 1
            self._finish()
            self._end_drains()
            self._read()
            self._resize(policy)
            if now < DAY_SECONDS:
                sizes[now] = self.num_costing
            elif not (self.waiting or self.num_in_flight):
                break
        assert not self.waiting, "prompts were left over"
        return Outcome(
            waits=self._waits,
            gpu_hours=float(sizes.sum()) / 3600,
            num_starts=self.num_starts,
            num_repeated=self.num_repeated,
            num_stopped_with_work=self.num_stopped_with_work,
            sizes=sizes,
        )

    def _start_worker(self, *, ready_at: int) -> None:
        self.workers.append(SimWorker(name=f"worker-{self.num_starts}", ready_at=ready_at))
        self.num_starts += 1

    def _finish(self) -> None:
        for worker, prompt in self._due[self.now]:
            if worker.gone:
                continue
            worker.slots.discard(prompt)
            self.num_sampled += 1
            if worker.ahead:
                self._begin(worker, worker.ahead.popleft())

    def _begin(self, worker: SimWorker, prompt: int) -> None:
        worker.slots.add(prompt)
        self._waits[prompt] = self.now - self._arrivals[prompt]
        self._due[self.now + self._services[prompt]].append((worker, prompt))

    def _read(self) -> None:
        readers = [worker for worker in self.workers if worker.ready_at <= self.now and not worker.cordoned]
        rooms = [SLOTS + READ_AHEAD - worker.num_in_hand for worker in readers]
        open_readers = [at for at, room in enumerate(rooms) if room > 0]
        while self.waiting and open_readers:
            choice = int(self._draw.random() * len(open_readers))
            at = open_readers[choice]
            worker, prompt = readers[at], self.waiting.popleft()
            if len(worker.slots) < SLOTS:
                self._begin(worker, prompt)
            else:
                worker.ahead.append(prompt)
            rooms[at] -= 1
            if rooms[at] == 0:
                open_readers[choice] = open_readers[-1]
                open_readers.pop()

    def _resize(self, policy: Policy) -> None:
        wanted = min(max(policy.size(self), MIN_REPLICAS), MAX_REPLICAS)
        while len(self.workers) < wanted:
            self._start_worker(ready_at=self.now + START_SECONDS)
        if len(self.workers) > wanted:
            self._stop_workers(len(self.workers) - wanted, least_busy_first=policy.least_busy_first)

    def _stop_workers(self, count: int, *, least_busy_first: bool) -> None:
        def order(worker: SimWorker) -> tuple[bool, int, int]:
            """As the ReplicaSet controller ranks them: not ready, then deletion cost, then the youngest."""
            is_ready = worker.ready_at <= self.now and not worker.cordoned
            cost = -1 if worker.cordoned and not worker.num_in_hand else worker.num_in_hand
            return is_ready, cost if least_busy_first else 0, -worker.ready_at

        ended = sorted(self.workers, key=order)[:count]
        self.workers = [worker for worker in self.workers if worker not in ended]
        for worker in ended:
            self.num_stopped_with_work += worker.num_in_hand > 0
            self.waiting.extendleft(reversed(worker.ahead))
            worker.ahead.clear()
        self._draining += [(self.now + DRAIN_SECONDS, worker) for worker in ended if worker.slots]

    def _end_drains(self) -> None:
        going_on = []
        for deadline, worker in self._draining:
            if worker.slots and self.now >= deadline:
                self.num_repeated += len(worker.slots)
                self.waiting.extendleft(sorted(worker.slots, reverse=True))
                worker.gone = True
            elif worker.slots:
                going_on.append((deadline, worker))
        self._draining = going_on
