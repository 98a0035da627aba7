"""A run in which the learner is the slow one: prompts always wait, and workers stop at the staleness bound.

The learner takes BATCH samples, needs STEP_SECONDS for them, and frees their room at the end of its step. What matters
is how little it waits, how few GPUs sample for it, and how often workers are started.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from scaling_fleet import Fleet
from scaling_policies import Scaler
from scaling_traffic import Day, draw_services

from onlinerlhf.scaler.observation import Pipeline
from onlinerlhf.scaler.run_state import Rate

HOURS = 4
STEP_SECONDS = 150
BATCH = 512
MAX_SAMPLES_AHEAD = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerOutcome:
    """Over HOURS."""

    idle_share: float
    """Of the time, with fewer than BATCH samples there."""
    mean_workers: float
    num_starts: int


class LearnerFleet(Fleet):
    """A pool that samples for a slow learner."""

    def __init__(self) -> None:
        seconds = HOURS * 3600
        num_prompts = 2 * BATCH * seconds // STEP_SECONDS
        services = draw_services(np.random.default_rng(0), num_prompts)
        super().__init__(Day(arrivals=np.zeros(num_prompts, dtype=np.int64), services=services), seed=0)
        self._pool = deque(range(num_prompts))
        self.num_learned = 0
        self._step_ends: int | None = None

    @property
    def num_ahead(self) -> int:
        """Sampled, not learned from."""
        return self.num_sampled - self.num_learned

    @property
    def num_undelivered(self) -> int:
        """Also those that the bound does not admit yet."""
        return len(self._pool) + len(self.waiting)

    def run_hours(self, policy: Scaler) -> LearnerOutcome:
        """All of it."""
        self._start_worker(ready_at=0)
        num_idle, num_workers = 0, 0
        for now in range(HOURS * 3600):
            self.now = now
            self._finish()
            self._end_drains()
            num_idle += self._learn()
            self._admit()
            self._read()
            self._resize(policy)
            num_workers += self.num_costing
        seconds = HOURS * 3600
        return LearnerOutcome(
            idle_share=num_idle / seconds, mean_workers=num_workers / seconds, num_starts=self.num_starts
        )

    def _learn(self) -> bool:
        """Whether the learner has nothing to do this second."""
        if self._step_ends is not None and self.now >= self._step_ends:
            self._step_ends, self.num_learned = None, self.num_learned + BATCH
        if self._step_ends is None and self.num_ahead >= BATCH:
            self._step_ends = self.now + STEP_SECONDS
        return self._step_ends is None

    def _admit(self) -> None:
        """Only what the bound admits can be read."""
        room = MAX_SAMPLES_AHEAD - self.num_ahead - self.num_in_flight - len(self.waiting)
        for _ in range(min(room, len(self._pool))):
            self.waiting.append(self._pool.popleft())


class LearnerScaler(Scaler):
    """decide() with the learner in sight, its rate included or not."""

    def __init__(self, *, knows_rate: bool) -> None:
        super().__init__()
        self._rate = Rate() if knows_rate else None

    def observe(self, fleet: Fleet) -> Pipeline:
        """As scaler/signals.py would."""
        assert isinstance(fleet, LearnerFleet)
        rate = None if self._rate is None else self._rate.add(float(fleet.now), fleet.num_learned)
        return Pipeline(
            num_waiting=fleet.num_undelivered,
            num_in_flight=fleet.num_in_flight,
            num_ahead=fleet.num_ahead,
            max_samples_ahead=MAX_SAMPLES_AHEAD,
            learner_samples_per_second=rate,
        )
