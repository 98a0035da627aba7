from dataclasses import replace

import pytest

from onlinerlhf.scaler.decision import decide
from onlinerlhf.scaler.observation import Memory, Reason
from unit.scaler.making import decide_once, follow, pipeline, pool, size_after, workers


def test_a_pool_grows_at_once_until_nobody_has_more_than_two_rounds_of_work() -> None:
    (decision,) = decide_once(pipeline(waiting=512, in_flight=128), pool(replicas=1))
    assert decision.replicas == 5
    assert decision.reason is Reason.BACKLOG
    assert "backlog 640, 64 a replica" in decision.message


def test_between_one_round_and_two_a_pool_keeps_its_size() -> None:
    for replicas in (5, 6, 7, 8, 9, 10):
        (decision,) = decide_once(pipeline(waiting=500, in_flight=140), pool(replicas=replicas))
        assert decision.replicas == replicas


def test_lag_alone_would_have_gone_to_zero_with_45_in_flight() -> None:
    undelivered, in_flight = 0, 45
    decision = size_after(3600, pipeline(waiting=undelivered, in_flight=in_flight), pool(replicas=1, at_least=0))
    assert decision.replicas == 1


def test_an_idle_and_empty_pool_goes_to_zero_after_the_window_and_no_sooner() -> None:
    idle = pool(replicas=3, at_least=0)
    assert size_after(55, pipeline(), idle).replicas == 3
    decision = size_after(60, pipeline(), idle)
    assert (decision.replicas, decision.reason) == (0, Reason.IDLE)


def test_one_prompt_brings_an_empty_pool_to_one_at_once() -> None:
    (decision,) = decide_once(pipeline(waiting=1), pool(replicas=0, at_least=0))
    assert decision.replicas == 1


def test_prompts_that_the_learner_does_not_admit_yet_keep_one_worker_but_bring_no_more() -> None:
    full = pipeline(waiting=5000, ahead=1024, max_ahead=1024)
    assert decide_once(full, pool(replicas=0, at_least=0))[0].replicas == 1
    assert size_after(600, full, pool(replicas=6, at_least=0)).replicas == 1


def test_a_pool_does_not_grow_beyond_what_the_learner_admits() -> None:
    (decision,) = decide_once(pipeline(waiting=10_000, in_flight=64, ahead=576, max_ahead=1024), pool(replicas=1))
    # In flight 64 and 384 admitted: 448 samples, 128 a replica in two rounds.
    assert decision.replicas == 4
    assert decision.reason is Reason.LEARNER_BOUND
    assert "learner admits 384 more" in decision.message


def test_a_learner_with_enough_queued_is_fed_at_its_own_pace_whatever_it_admits_at_the_moment() -> None:
    # 2 a second for 120 s are 240 samples, in two rounds of 64.
    just_stepped = pipeline(waiting=5000, ahead=512, max_ahead=1024, rate=2.0)
    full_again = pipeline(waiting=5000, ahead=1024, max_ahead=1024, rate=2.0)
    assert decide_once(just_stepped, pool(replicas=1))[0].replicas == 2
    course = ([just_stepped] * 4 + [full_again] * 20) * 5
    assert {decision.replicas for decision in follow(course, pool(replicas=2))} == {2}


def test_a_learner_that_runs_out_gets_all_it_admits() -> None:
    (decision,) = decide_once(pipeline(waiting=5000, ahead=200, max_ahead=1024, rate=2.0), pool(replicas=1))
    assert decision.replicas == 7


def test_a_learner_that_stands_still_admits_what_its_bound_says() -> None:
    (decision,) = decide_once(pipeline(waiting=5000, ahead=512, max_ahead=1024, rate=0.0), pool(replicas=1))
    assert decision.replicas == 4


def test_more_ahead_than_the_bound_admits_nothing_rather_than_less() -> None:
    (decision,) = decide_once(pipeline(waiting=500, in_flight=640, ahead=2000, max_ahead=1024), pool(replicas=2))
    assert decision.replicas == 5


def test_a_smaller_size_must_have_sufficed_for_the_whole_window() -> None:
    busy, quiet = pipeline(in_flight=640), pipeline(in_flight=64)
    decisions = follow([busy, *[quiet] * 11, busy, *[quiet] * 13], pool(replicas=10))
    assert [decision.replicas for decision in decisions] == [10] * 24 + [1, 1]
    assert decisions[20].reason is Reason.STABILIZING
    assert "10 were wanted in the last 60 s" in decisions[20].message


def test_workers_that_hold_work_are_not_stopped_with_the_window_but_not_kept_for_ever() -> None:
    trickle = pipeline(in_flight=12)
    spread = pool(replicas=4, holding=workers(3, 3, 3, 3))
    held = size_after(85, trickle, spread)
    assert (held.replicas, held.reason) == (4, Reason.WORK_IN_HAND)
    assert held.message == "4 workers hold work; 1 would do"
    assert size_after(90, trickle, spread).replicas == 1


def test_only_workers_without_work_are_stopped_with_the_window() -> None:
    decision = size_after(60, pipeline(in_flight=60), pool(replicas=6, holding=workers(30, 30, 0, 0, 0, 0)))
    assert decision.replicas == 2


def test_a_worker_that_answers_a_user_holds_work() -> None:
    decision = size_after(60, pipeline(), pool(replicas=3, at_least=0, holding=workers(0, 0, 0, users=[1])))
    assert decision.replicas == 1


def test_users_alone_make_a_pool_grow() -> None:
    (decision,) = decide_once(pipeline(), pool(replicas=2, holding=workers(0, 0, users=[30, 20])))
    assert (decision.replicas, decision.reason) == (4, Reason.USERS)
    assert "users 50, 16 a replica" in decision.message


def test_users_and_samples_share_a_worker_as_each_has_slots_of_its_own() -> None:
    (decision,) = decide_once(pipeline(in_flight=384), pool(replicas=2, holding=workers(192, 192, users=[24, 24])))
    assert decision.replicas == 3


def test_the_learners_bound_does_not_hold_users_back() -> None:
    full = pipeline(waiting=5000, ahead=1024, max_ahead=1024)
    (decision,) = decide_once(full, pool(replicas=1, holding=workers(0, users=[64])))
    assert (decision.replicas, decision.reason) == (4, Reason.USERS)


def test_without_redis_every_pool_keeps_its_size_but_an_operators() -> None:
    automatic, fixed = pool(name="a", replicas=7, at_most=5), pool(name="b", replicas=2, fixed=4)
    first, second = decide_once(None, automatic, fixed)
    assert (first.replicas, first.reason) == (7, Reason.HOLDING)
    assert (second.replicas, second.reason) == (4, Reason.FIXED)


def test_the_window_begins_anew_after_an_outage() -> None:
    decisions = follow([pipeline()] * 12 + [None] * 2 + [pipeline()] * 13, pool(replicas=5, at_least=0))
    assert [decision.replicas for decision in decisions] == [5] * 25 + [0, 0]


def test_a_ready_worker_that_does_not_answer_keeps_a_pool_from_shrinking_but_not_from_growing() -> None:
    silent = replace(workers(0)[0], answered=False)
    state = pool(replicas=3, holding=(silent, *workers(0, 0)))
    held = size_after(600, pipeline(), state)
    assert (held.replicas, held.reason) == (3, Reason.HOLDING)
    assert size_after(0, pipeline(waiting=1280), state).replicas == 10


def test_a_worker_that_is_not_ready_need_not_answer() -> None:
    starting = replace(workers(0)[0], answered=False, ready=False)
    assert size_after(600, pipeline(), pool(replicas=3, holding=(starting,) * 3)).replicas == 1


def test_a_scaler_that_just_started_shrinks_nothing() -> None:
    (decision,) = decide_once(pipeline(), pool(replicas=9, at_least=0))
    assert (decision.replicas, decision.reason) == (9, Reason.STABILIZING)


def test_an_operators_size_is_taken_as_it_is() -> None:
    for fixed in (0, 3, 50):
        (decision,) = decide_once(pipeline(waiting=5000), pool(replicas=2, at_least=1, at_most=20, fixed=fixed))
        assert (decision.replicas, decision.reason) == (fixed, Reason.FIXED)


def test_a_paused_pool_stays_as_it_is_whatever_it_was_told_before() -> None:
    for fixed in (None, 3):
        (decision,) = decide_once(pipeline(waiting=5000), pool(replicas=2, paused=True, fixed=fixed))
        assert (decision.replicas, decision.reason) == (2, Reason.PAUSED)


def test_an_operators_size_stays_for_a_window_when_the_pool_is_automatic_again() -> None:
    _, memory = decide(pipeline(), [pool(replicas=1)], Memory(), now=0.0)
    _, memory = decide(pipeline(), [pool(replicas=8, fixed=8)], memory, now=500.0)
    (at_once,), memory = decide(pipeline(), [pool(replicas=8)], memory, now=1000.0)
    (later,), _ = decide(pipeline(), [pool(replicas=8)], memory, now=1060.0)
    assert (at_once.replicas, later.replicas) == (8, 1)


def test_a_lower_maximum_counts_at_once() -> None:
    (decision,) = decide_once(pipeline(in_flight=640), pool(replicas=10, at_most=4, holding=workers(*[64] * 10)))
    assert (decision.replicas, decision.reason) == (4, Reason.AT_MAXIMUM)
    assert "5 would be used, at most 4" in decision.message


def test_a_higher_minimum_counts_at_once() -> None:
    (decision,) = decide_once(pipeline(), pool(replicas=1, at_least=3))
    assert (decision.replicas, decision.reason) == (3, Reason.AT_MINIMUM)


def test_the_pool_of_higher_priority_is_filled_first_and_emptied_last() -> None:
    spot = pool(name="spot", priority=10, at_least=0, at_most=4, replicas=0)
    reserve = pool(name="reserve", at_least=0, at_most=10, replicas=0)
    grown = decide_once(pipeline(waiting=1024), reserve, spot)
    assert [(each.pool, each.replicas) for each in grown] == [("reserve", 4), ("spot", 4)]
    memory, states = Memory(), [replace(reserve, replicas=4), replace(spot, replicas=4)]
    for second in range(0, 65, 5):
        shrunk, memory = decide(pipeline(in_flight=256), states, memory, now=float(second))
    assert [each.replicas for each in shrunk] == [0, 4]


def test_each_pool_counts_by_what_its_own_workers_carry() -> None:
    large = pool(name="large", priority=1, at_least=0, at_most=2, replicas=0, samples=256)
    small = pool(name="small", at_least=0, at_most=10, replicas=0, samples=32)
    first, second = decide_once(pipeline(waiting=1280), large, small)
    # Two of 512 in two rounds, and 256 left for workers of 64.
    assert (first.replicas, second.replicas) == (2, 4)


def test_replicas_that_are_there_in_any_case_take_their_share_first() -> None:
    fixed = pool(name="fixed", replicas=4, fixed=4)
    automatic = pool(name="automatic", priority=5, at_least=0, replicas=0)
    _, decision = decide_once(pipeline(waiting=512), fixed, automatic)
    assert (decision.replicas, decision.reason) == (0, Reason.IDLE)
    assert "other pools' replicas are enough" in decision.message


@pytest.mark.parametrize("seconds", [0.0, 3.0])
def test_a_window_shorter_than_a_poll_shrinks_with_the_next_decision(seconds: float) -> None:
    state = pool(replicas=5, at_least=0)
    state = replace(state, spec=replace(state.spec, scale_down_seconds=seconds))
    _, memory = decide(pipeline(), [state], Memory(), now=0.0)
    (decision,), _ = decide(pipeline(), [state], memory, now=5.0)
    assert decision.replicas == 0
