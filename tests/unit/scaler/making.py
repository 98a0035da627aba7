"""Pipelines and pools for the decision's tests, and the decision over a stretch of time."""

from collections.abc import Sequence
from dataclasses import replace

from onlinerlhf.scaler.cordon import deletion_cost
from onlinerlhf.scaler.decision import decide
from onlinerlhf.scaler.observation import Decision, Memory, Pipeline, PoolSpec, PoolState, Worker

WINDOW_SECONDS = 60.0
POLL_SECONDS = 5.0


def pipeline(
    *, waiting: int = 0, in_flight: int = 0, ahead: int = 0, max_ahead: int = 100_000, rate: float | None = None
) -> Pipeline:
    """A run at one moment; unless told otherwise, the learner admits nearly everything."""
    return Pipeline(
        num_waiting=waiting,
        num_in_flight=in_flight,
        num_ahead=ahead,
        max_samples_ahead=max_ahead,
        learner_samples_per_second=rate,
    )


def workers(*num_in_flight: int, users: Sequence[int] = ()) -> tuple[Worker, ...]:
    """One a number; `users` of the first ones."""
    return tuple(
        Worker(
            name=f"rollout-{number}",
            ready=True,
            started=True,
            version=1,
            num_in_flight=samples,
            num_user_requests=users[number] if number < len(users) else 0,
        )
        for number, samples in enumerate(num_in_flight)
    )


def pool(
    *,
    name: str = "default",
    replicas: int = 1,
    at_least: int = 1,
    at_most: int = 20,
    holding: tuple[Worker, ...] = (),
    fixed: int | None = None,
    paused: bool = False,
    priority: int = 0,
    samples: int = 64,
) -> PoolState:
    """A pool of workers with 64 slots that shrinks after 60 s."""
    spec = PoolSpec(
        name=name,
        deployment=f"rollout-{name}",
        min_replicas=at_least,
        max_replicas=at_most,
        fixed_replicas=fixed,
        paused=paused,
        priority=priority,
        samples_per_replica=samples,
        scale_down_seconds=WINDOW_SECONDS,
    )
    return PoolState(spec=spec, replicas=replicas, workers=holding)


def decide_once(now: Pipeline | None, *pools: PoolState, memory: Memory | None = None) -> tuple[Decision, ...]:
    """The decisions of a scaler that has just started, unless it remembers something."""
    return decide(now, pools, Memory() if memory is None else memory, now=1000.0)[0]


def size_after(seconds: float, what: Pipeline, start: PoolState, *, they_finish: bool = False) -> Decision:
    """The last decision of a scaler that saw the same for so long, and whose decisions were carried out at once."""
    return follow([what] * (int(seconds / POLL_SECONDS) + 1), start, they_finish=they_finish)[-1]


def follow(course: Sequence[Pipeline | None], start: PoolState, *, they_finish: bool = False) -> list[Decision]:
    """A decision a poll; each is carried out before the next. Cordoned workers finish within a poll, or never."""
    memory, state, decisions = Memory(), start, []
    for number, moment in enumerate(course):
        (decision,), memory = decide(moment, [state], memory, now=1000.0 + number * POLL_SECONDS)
        decisions.append(decision)
        state = carry_out(state, decision)
        if they_finish:
            state = replace(state, workers=tuple(_finished(worker) for worker in state.workers))
    return decisions


def carry_out(state: PoolState, decision: Decision) -> PoolState:
    """As workers and Kubernetes would: the cordoned are ready no more; not ready, then cheapest, goes first."""
    workers = [
        replace(worker, cordoned=worker.name in decision.cordon, keeps_users_away=True) for worker in state.workers
    ]
    workers = [replace(worker, ready=worker.started and not worker.cordoned) for worker in workers]
    num_gone = max(0, len(workers) - decision.replicas)
    gone = sorted(workers, key=lambda worker: (worker.ready, deletion_cost(worker)))[:num_gone]
    kept = tuple(worker for worker in workers if worker not in gone)
    return replace(state, replicas=decision.replicas, workers=kept)


def _finished(worker: Worker) -> Worker:
    return replace(worker, num_in_flight=0, num_user_requests=0) if worker.cordoned else worker
