"""The autoscalers that are compared: this project's, and the two that people have at hand."""

import math
from collections import deque

from scaling_fleet import MAX_REPLICAS, MIN_REPLICAS, SLOTS, Fleet, SimWorker

from onlinerlhf.scaler.decision import decide
from onlinerlhf.scaler.observation import Memory, Pipeline, PoolSpec, PoolState, Worker

POLL_SECONDS = 5
HPA_SYNC_SECONDS = 15
HPA_TOLERANCE = 0.1
HPA_DOWN_SECONDS = 300
HPA_UP_PODS = 4
CPU_TARGET = 0.7
IDLE_CPU = 0.1
"""Of its request that a worker without a sample uses; with all slots taken it uses all."""


class Scaler:
    """decide(), asked every POLL_SECONDS as the controller asks it."""

    least_busy_first = True

    def __init__(self) -> None:
        self._spec = PoolSpec(
            name="default",
            deployment="rollout",
            min_replicas=MIN_REPLICAS,
            max_replicas=MAX_REPLICAS,
            samples_per_replica=SLOTS,
        )
        self._memory = Memory()

    def size(self, fleet: Fleet) -> int:
        """The decision's replicas."""
        if fleet.now % POLL_SECONDS:
            return len(fleet.workers)
        workers = tuple(_as_seen(worker, fleet.now) for worker in fleet.workers)
        pool = PoolState(spec=self._spec, replicas=len(fleet.workers), workers=workers)
        (decision,), self._memory = decide(self.observe(fleet), [pool], self._memory, now=float(fleet.now))
        for worker in fleet.workers:
            worker.cordoned = worker.name in decision.cordon
        return decision.replicas

    def observe(self, fleet: Fleet) -> Pipeline:
        """The learner keeps up."""
        return Pipeline(
            num_waiting=len(fleet.waiting), num_in_flight=fleet.num_in_flight, num_ahead=0, max_samples_ahead=10**6
        )


def _as_seen(worker: SimWorker, now: int) -> Worker:
    is_up = worker.ready_at <= now
    return Worker(
        name=worker.name,
        ready=is_up and not worker.cordoned,
        started=is_up,
        answered=is_up,
        version=int(is_up),
        num_in_flight=worker.num_in_hand,
        cordoned=worker.cordoned,
    )


class _HPA:
    """The HorizontalPodAutoscaler's loop around a metric, with its default behaviour.

    Up: at most the larger of doubling and HPA_UP_PODS more, every sync. Down: the largest recommendation of the last
    HPA_DOWN_SECONDS.
    """

    least_busy_first = False

    def __init__(self) -> None:
        self._recommendations: deque[tuple[int, int]] = deque()

    def size(self, fleet: Fleet) -> int:
        """What the HPA writes into the Deployment."""
        current = len(fleet.workers)
        if fleet.now % HPA_SYNC_SECONDS:
            return current
        wanted = min(max(self.recommend(fleet), MIN_REPLICAS), MAX_REPLICAS)
        self._recommendations.append((fleet.now, wanted))
        while self._recommendations[0][0] <= fleet.now - HPA_DOWN_SECONDS:
            self._recommendations.popleft()
        if wanted > current:
            return min(wanted, max(2 * current, current + HPA_UP_PODS))
        return min(current, max(size for _, size in self._recommendations))

    def recommend(self, fleet: Fleet) -> int:
        """Replicas by the metric at this moment."""
        raise NotImplementedError


class CPU(_HPA):
    """Plain HPA on the average CPU utilisation, CPU_TARGET.

    Pods that are not ready count as idle where the fleet would grow and as on target where it would shrink.
    """

    def recommend(self, fleet: Fleet) -> int:
        """ceil(pods * utilisation / target), unless that lies within the tolerance."""
        current = len(fleet.workers)
        ready = fleet.ready
        if not ready:
            return current
        used = sum(IDLE_CPU + (1 - IDLE_CPU) * len(worker.slots) / SLOTS for worker in ready)
        ratio = used / (CPU_TARGET * len(ready))
        if abs(ratio - 1) <= HPA_TOLERANCE:
            return current
        if len(ready) == current:
            return math.ceil(ratio * current)
        missing = 0.0 if ratio > 1 else CPU_TARGET * (current - len(ready))
        with_missing = (used + missing) / (CPU_TARGET * current)
        if abs(with_missing - 1) <= HPA_TOLERANCE or (with_missing > 1) != (ratio > 1):
            return current
        return math.ceil(with_missing * current)


class KEDA(_HPA):
    """KEDA's redis-streams scaler on lagCount: an HPA on undelivered entries, so many a replica.

    Its polling interval and cooldown concern the step between 0 and 1 alone, which a minimum of 1 never takes.
    """

    def __init__(self, *, lag_count: int) -> None:
        super().__init__()
        self._lag_count = lag_count

    def recommend(self, fleet: Fleet) -> int:
        """ceil(lag / lagCount), unless the lag a replica lies within the tolerance."""
        lag, current = len(fleet.waiting), len(fleet.workers)
        if abs(lag / (self._lag_count * current) - 1) <= HPA_TOLERANCE:
            return current
        return math.ceil(lag / self._lag_count)
