"""Which workers of a pool that is too large are emptied, and how many of those may go already. Pure.

Work lands on every worker, so a pool that only waited for some to be without would never shrink. A cordoned worker
gets no new samples and no new users, finishes what it has, and then can be stopped.
"""

from collections.abc import Sequence

from onlinerlhf.scaler.observation import PoolState, Worker


def staying(workers: Sequence[Worker], replicas: int) -> tuple[Worker, ...]:
    """Without those that a shrink was for and that Kubernetes, which takes a moment, has not marked as deleted yet.

    Counted, they would be emptied workers for a second shrink, and their cordons would be lifted on their way out.
    """
    order = sorted(workers, key=_deletion_order)[: max(0, len(workers) - replicas)]
    leaving = {worker.name for worker in order if worker.is_emptied and not worker.is_silent}
    return tuple(worker for worker in workers if worker.name not in leaving)


def to_empty(pool: PoolState, wanted: int) -> tuple[Worker, ...]:
    """As many workers as the pool has above `wanted`, less those of its replicas that are not there yet.

    First those that cannot serve anyway, then those cordoned already, so that none is changed for another, then those
    with the least work in hand.
    """
    surplus = pool.replicas - wanted - _num_missing(pool)
    order = sorted(
        pool.workers, key=lambda worker: (worker.is_usable, not worker.cordoned, _work_in_hand(worker), worker.name)
    )
    return tuple(order[: max(0, surplus)])


def smallest_size(pool: PoolState, emptying: tuple[Worker, ...]) -> int:
    """The size that stops only workers of `emptying` that are emptied: never less than there are workers with work.

    Kubernetes chooses whom to stop: those not ready first, then by deletion cost. So only those count that come before
    every other one there.
    """
    names = {worker.name for worker in emptying}
    num_free = 0
    for worker in sorted(pool.workers, key=_deletion_order):
        if not (worker.is_emptied and worker.name in names):
            break
        num_free += 1
    num_holding = sum(worker.holds_work for worker in pool.workers)
    return max(pool.replicas - _num_missing(pool) - num_free, min(num_holding, pool.replicas))


def deletion_cost(worker: Worker) -> int:
    """Of its pod: what it has in hand. One that is emptied goes before one that merely has nothing at the moment."""
    return -1 if worker.is_emptied else _work_in_hand(worker)


def _deletion_order(worker: Worker) -> tuple[bool, int]:
    return worker.ready, deletion_cost(worker)


def _work_in_hand(worker: Worker) -> int:
    return worker.num_in_flight + worker.num_user_requests


def _num_missing(pool: PoolState) -> int:
    """Replicas asked for of which there is no pod."""
    return max(0, pool.replicas - len(pool.workers))
