from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from onlinerlhf.scaler.decision import WAIT_FOR_WORK, decide
from onlinerlhf.scaler.observation import Decision, Memory, Pipeline, PoolSpec, PoolState, Reason, Worker

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
    return PoolState(spec=spec, replicas=draw(SIZES), workers=tuple(draw(st.lists(workers(), max_size=8))))


@st.composite
def workers(draw: st.DrawFn) -> Worker:
    return Worker(
        name="w",
        ready=draw(st.booleans()),
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
        else:
            assert pool.spec.min_replicas <= decision.replicas <= pool.spec.max_replicas


@SLOWLY
@given(pipelines(), pool_states(), memories())
def test_a_pool_never_shrinks_below_the_workers_that_hold_work_before_their_time(
    now: Pipeline, pool: PoolState, memory: Memory
) -> None:
    (decision,), _ = decide(now, [pool], memory, now=NOW)
    history = memory.wishes.get("default", ((NOW, pool.replicas),))
    patience = WAIT_FOR_WORK * pool.spec.scale_down_seconds
    held = min(sum(worker.holds_work for worker in pool.workers), pool.replicas)
    sufficed = max((size for at, size in history if at > NOW - patience), default=0)
    assert decision.replicas >= min(held, sufficed, pool.spec.max_replicas)


@SLOWLY
@given(pipelines(), pool_states())
def test_there_is_room_for_all_work_in_hand(now: Pipeline, pool: PoolState) -> None:
    (decision,), _ = decide(now, [pool], Memory(), now=NOW)
    room = 2 * pool.spec.samples_per_replica * decision.replicas
    assert room >= now.num_in_flight or decision.replicas == pool.spec.max_replicas


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
    memory, state, sizes = Memory(), pool, []
    settled_after = WAIT_FOR_WORK * pool.spec.scale_down_seconds
    for number in range(130):
        (decision,), memory = decide(now, [state], memory, now=NOW + 5.0 * number)
        state = replace(state, replicas=decision.replicas)
        if 5.0 * number > settled_after:
            sizes.append(decision.replicas)
    assert len(set(sizes)) == 1


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
def test_without_a_memory_nothing_shrinks_but_to_its_maximum(now: Pipeline, pool: PoolState) -> None:
    pool = replace(pool, spec=replace(pool.spec, scale_down_seconds=30.0))
    (decision,), _ = decide(now, [pool], Memory(), now=NOW)
    assert decision.replicas >= min(pool.replicas, pool.spec.max_replicas)


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
