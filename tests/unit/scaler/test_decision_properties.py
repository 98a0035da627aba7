from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from onlinerlhf.scaler.cordon import deletion_cost
from onlinerlhf.scaler.decision import decide
from onlinerlhf.scaler.observation import Decision, Memory, Pipeline, PoolSpec, PoolState, Reason, Worker
from unit.scaler.making import carry_out, follow

NOW = 10_000.0
SLOWLY = settings(deadline=None)
"""A busy machine is no failure."""
COUNTS = st.integers(0, 5_000)
SIZES = st.integers(0, 40)


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    return Pipeline(
        num_waiting=draw(COUNTS),
        num_in_flight=draw(COUNTS),
        num_ahead=draw(COUNTS),
        max_samples_ahead=draw(st.integers(1, 20_000)),
        learner_samples_per_second=draw(st.none() | st.floats(0, 20)),
    )


@st.composite
def pool_states(draw: st.DrawFn, name: str = "default", *, by_hand: bool = False) -> PoolState:
    least = draw(st.integers(0, 5))
    spec = PoolSpec(
        name=name,
        deployment=name,
        min_replicas=least,
        max_replicas=draw(st.integers(max(least, 1), 30)),
        fixed_replicas=draw(st.none() | SIZES) if by_hand else None,
        paused=by_hand and draw(st.booleans()),
        priority=draw(st.integers(-2, 2)),
        samples_per_replica=draw(st.integers(1, 256)),
        users_per_replica=draw(st.integers(1, 64)),
        scale_down_seconds=draw(st.sampled_from([0.0, 30.0, 60.0, 300.0])),
    )
    replicas = draw(SIZES)
    # No more than there are replicas: who is on the way out is not listed.
    found = draw(st.lists(workers(), max_size=min(replicas, 8)))
    named = tuple(replace(worker, name=f"{name}-{number}") for number, worker in enumerate(found))
    return PoolState(spec=spec, replicas=replicas, workers=named)


@st.composite
def workers(draw: st.DrawFn) -> Worker:
    return Worker(
        name="w",
        ready=draw(st.booleans()),
        started=draw(st.booleans()),
        cordoned=draw(st.booleans()),
        keeps_users_away=draw(st.booleans()),
        version=draw(st.integers(0, 1)),
        num_in_flight=draw(st.integers(0, 128)),
        num_user_requests=draw(st.integers(0, 32)),
        answered=draw(st.booleans()),
    )


@st.composite
def fleets(draw: st.DrawFn) -> list[PoolState]:
    return [draw(pool_states(name=f"pool-{number}", by_hand=True)) for number in range(draw(st.integers(1, 4)))]


@st.composite
def memories(draw: st.DrawFn) -> Memory:
    ages = sorted(draw(st.lists(st.floats(0, 500), max_size=6)), reverse=True)
    history = tuple((NOW - age, draw(SIZES)) for age in ages)
    return Memory(wishes={"default": history} if history else {})


@SLOWLY
@given(pipelines(), pool_states(), memories(), st.integers(0, 3_000))
def test_more_backlog_never_means_fewer_workers(now: Pipeline, pool: PoolState, memory: Memory, more: int) -> None:
    (before,), _ = decide(now, [pool], memory, now=NOW)
    (after,), _ = decide(replace(now, num_waiting=now.num_waiting + more), [pool], memory, now=NOW)
    assert after.replicas >= before.replicas


@SLOWLY
@given(pipelines(), fleets(), st.integers(0, 3_000))
def test_more_backlog_never_means_fewer_workers_in_any_of_several_pools(
    now: Pipeline, fleet: list[PoolState], more: int
) -> None:
    before, _ = decide(now, fleet, Memory(), now=NOW)
    after, _ = decide(replace(now, num_waiting=now.num_waiting + more), fleet, Memory(), now=NOW)
    assert all(late.replicas >= early.replicas for early, late in zip(before, after, strict=True))


@SLOWLY
@given(pipelines(), fleets())
def test_a_size_that_no_operator_chose_lies_within_its_bounds(now: Pipeline, fleet: list[PoolState]) -> None:
    decisions, _ = decide(now, fleet, Memory(), now=NOW)
    for pool, decision in zip(fleet, decisions, strict=True):
        assert decision.pool == pool.spec.name and decision.message
        if pool.spec.paused:
            assert decision.replicas == pool.replicas
        elif pool.spec.fixed_replicas is not None:
            assert decision.replicas == pool.spec.fixed_replicas
        elif decision.reason in (Reason.WORK_IN_HAND, Reason.HOLDING):
            assert pool.spec.min_replicas <= decision.replicas <= max(pool.replicas, pool.spec.max_replicas)
        else:
            assert pool.spec.min_replicas <= decision.replicas <= pool.spec.max_replicas


@SLOWLY
@given(st.none() | pipelines(), pool_states(), memories())
def test_no_decision_of_the_scalers_own_is_below_the_workers_that_hold_work(
    now: Pipeline | None, pool: PoolState, memory: Memory
) -> None:
    (decision,), _ = decide(now, [pool], memory, now=NOW)
    assert decision.replicas >= sum(worker.holds_work for worker in pool.workers)


@SLOWLY
@given(st.none() | pipelines(), pool_states(), memories())
def test_nobody_is_stopped_who_holds_work_or_may_get_some(
    now: Pipeline | None, pool: PoolState, memory: Memory
) -> None:
    """By Kubernetes, which goes by readiness and deletion cost."""
    (decision,), _ = decide(now, [pool], memory, now=NOW)
    order = sorted(pool.workers, key=lambda worker: (worker.ready, deletion_cost(worker)))
    stopped = order[: max(0, len(pool.workers) - decision.replicas)]
    assert all(worker.cordoned and worker.keeps_users_away for worker in stopped)
    assert not any(worker.holds_work or worker.is_silent for worker in stopped)
    assert {worker.name for worker in stopped} <= set(decision.cordon)


@SLOWLY
@given(pipelines(), pool_states(), memories())
def test_only_what_is_too_much_is_cordoned(now: Pipeline, pool: PoolState, memory: Memory) -> None:
    (decision,), _ = decide(now, [pool], memory, now=NOW)
    names = {worker.name for worker in pool.workers}
    assert set(decision.cordon) <= names and len(set(decision.cordon)) == len(decision.cordon)
    assert len(names) - len(decision.cordon) >= min(len(names), pool.spec.min_replicas)
    if decision.replicas > pool.replicas:
        assert decision.cordon == ()


@SLOWLY
@given(pipelines(), pool_states(), memories(), st.integers(0, 3_000))
def test_more_backlog_never_cordons_another_worker(now: Pipeline, pool: PoolState, memory: Memory, more: int) -> None:
    (before,), _ = decide(now, [pool], memory, now=NOW)
    (after,), _ = decide(replace(now, num_waiting=now.num_waiting + more), [pool], memory, now=NOW)
    assert set(after.cordon) <= set(before.cordon)


@SLOWLY
@given(pipelines(), pool_states())
def test_cordons_stay_with_the_same_workers(now: Pipeline, pool: PoolState) -> None:
    """The same input again, and none of them done: nobody is let go of for another."""
    started = replace(
        pool,
        workers=tuple(replace(worker, ready=True, started=True, answered=True, version=1) for worker in pool.workers),
    )
    (first,), memory = decide(now, [started], Memory(), now=NOW)
    (second,), _ = decide(now, [carry_out(started, first)], memory, now=NOW + 5)
    living = {worker.name for worker in carry_out(started, first).workers}
    assert set(first.cordon) & living <= set(second.cordon)


@SLOWLY
@given(pipelines(), pool_states())
def test_work_on_every_worker_does_not_keep_a_pool_large(now: Pipeline, pool: PoolState) -> None:
    """As soon as cordoned workers finish, the pool has the size that it would have without work in hand."""
    busy = Worker(name="", ready=True, started=True, version=1, num_in_flight=1)
    workers = tuple(replace(busy, name=f"w-{number}") for number in range(pool.replicas))
    course = [now] * 70
    assert (
        follow(course, replace(pool, workers=workers), they_finish=True)[-1].replicas
        == follow(course, replace(pool, workers=()))[-1].replicas
    )


@SLOWLY
@given(pipelines(), pool_states())
def test_there_is_room_for_all_work_in_hand(now: Pipeline, pool: PoolState) -> None:
    (decision,), _ = decide(now, [pool], Memory(), now=NOW)
    room = 2 * pool.spec.samples_per_replica * decision.replicas
    assert room >= now.num_in_flight or decision.replicas >= pool.spec.max_replicas


@SLOWLY
@given(pipelines(), pool_states(), memories())
def test_a_pool_is_empty_only_when_nothing_waits_and_nothing_is_in_progress(
    now: Pipeline, pool: PoolState, memory: Memory
) -> None:
    (decision,), _ = decide(now, [pool], memory, now=NOW)
    users = sum(worker.num_user_requests for worker in pool.workers)
    if decision.replicas == 0:
        assert now.backlog == 0 and users == 0


@SLOWLY
@given(pool_states())
def test_idle_and_empty_every_pool_reaches_its_minimum(pool: PoolState) -> None:
    idle = replace(pool, workers=())
    decision = _last(Pipeline(num_waiting=0, num_in_flight=0, num_ahead=0, max_samples_ahead=1), idle)
    assert decision.replicas == pool.spec.min_replicas
    assert decision.reason in (Reason.IDLE, Reason.AT_MINIMUM)


@SLOWLY
@given(pipelines(), pool_states())
def test_the_same_input_settles_after_the_window(now: Pipeline, pool: PoolState) -> None:
    """No flapping: what a settled pool is decided to be is what it is."""
    # Users who get their answer are fewer users: another input.
    workers = tuple(replace(worker, num_user_requests=0) for worker in pool.workers)
    decisions = follow([now] * 130, replace(pool, workers=workers), they_finish=True)
    window = int(pool.spec.scale_down_seconds / 5)
    assert len({decision.replicas for decision in decisions[window + 4 :]}) == 1


@SLOWLY
@given(st.lists(st.none() | pipelines(), max_size=30), pool_states())
def test_a_pool_shrinks_only_to_what_was_enough_all_through_the_window(
    course: list[Pipeline | None], pool: PoolState
) -> None:
    """Seen from outside: no size in the last window's course would have called for more."""
    memory, state, called_for = Memory(), replace(pool, workers=()), []
    for number, moment in enumerate(course):
        now = NOW + 5.0 * number
        (decision,), memory = decide(moment, [state], memory, now=now)
        (alone,), _ = decide(moment, [replace(state, replicas=0)], Memory(), now=now)
        called_for.append((now, state.replicas if moment is None else alone.replicas))
        if decision.replicas < min(state.replicas, pool.spec.max_replicas):
            window = [size for at, size in called_for if at > now - pool.spec.scale_down_seconds]
            assert decision.replicas >= max(window, default=0)
        state = replace(state, replicas=decision.replicas)


@SLOWLY
@given(fleets(), memories())
def test_without_redis_no_pool_changes_but_by_hand(fleet: list[PoolState], memory: Memory) -> None:
    decisions, _ = decide(None, fleet, memory, now=NOW)
    for pool, decision in zip(fleet, decisions, strict=True):
        if pool.spec.paused or pool.spec.fixed_replicas is None:
            assert decision.replicas == pool.replicas


@SLOWLY
@given(pipelines(), pool_states())
def test_without_a_memory_nothing_shrinks_but_by_the_cordons_there_are_and_to_its_maximum(
    now: Pipeline, pool: PoolState
) -> None:
    pool = replace(pool, spec=replace(pool.spec, scale_down_seconds=30.0))
    (decision,), _ = decide(now, [pool], Memory(), now=NOW)
    assert decision.replicas >= min(pool.num_serving, pool.spec.max_replicas)


@SLOWLY
@given(st.lists(pipelines(), max_size=60), pool_states())
def test_the_memory_stays_small(course: list[Pipeline], pool: PoolState) -> None:
    memory = Memory()
    for number, moment in enumerate(course):
        _, memory = decide(moment, [pool], memory, now=NOW + 5.0 * number)
    sizes = [size for _, size in memory.wishes.get("default", ())]
    assert sizes == sorted(set(sizes), reverse=True)


def _last(now: Pipeline, pool: PoolState) -> Decision:
    memory, state = Memory(), pool
    for number in range(100):
        (decision,), memory = decide(now, [state], memory, now=NOW + 5.0 * number)
        state = replace(state, replicas=decision.replicas)
    return decision
