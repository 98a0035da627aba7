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


def test_a_trickle_on_every_worker_does_not_keep_a_pool_large() -> None:
    trickle, spread = pipeline(in_flight=12), pool(replicas=4, holding=workers(3, 3, 3, 3))
    decisions = follow([trickle] * 16, spread, they_finish=True)
    assert [decision.replicas for decision in decisions] == [4] * 13 + [1, 1, 1]
    assert [len(decision.cordon) for decision in decisions] == [0] * 12 + [3, 3, 0, 0]
    assert decisions[12].reason is Reason.WORK_IN_HAND
    assert decisions[12].message.endswith("; 3 workers are emptied first, then 1 do")


def test_a_cordoned_worker_that_does_not_get_done_stays_and_the_others_go() -> None:
    slow = replace(workers(9)[0], name="slow", cordoned=True, ready=False)
    emptied = replace(workers(0)[0], name="emptied", cordoned=True, ready=False)
    state = pool(replicas=4, holding=(slow, emptied, *workers(5, 5)))
    decision = size_after(60, pipeline(in_flight=19), state)
    assert (decision.replicas, decision.cordon) == (3, ("rollout-0", "slow"))
    assert size_after(3600, pipeline(in_flight=19), state).replicas == 3


def test_workers_without_work_are_cordoned_first_and_go_with_the_next_decision() -> None:
    state = pool(replicas=6, holding=workers(30, 0, 30, 0, 0, 0))
    decisions = follow([pipeline(in_flight=60)] * 14, state)
    assert (decisions[12].replicas, decisions[12].cordon) == (
        6,
        ("rollout-0", "rollout-1", "rollout-3", "rollout-4", "rollout-5"),
    )
    # All have been cordoned for a poll, and one of them holds work yet.
    assert decisions[13].replicas == 2


def test_a_worker_that_only_happens_to_have_nothing_does_not_count_as_emptied() -> None:
    (decision,) = decide_once(pipeline(), pool(replicas=3, at_most=2, holding=workers(0, 0, 0)))
    assert (decision.replicas, decision.cordon) == (3, ("rollout-0",))


def test_a_cordoned_worker_that_does_not_keep_users_away_yet_stays() -> None:
    slow, unaware = (replace(each, cordoned=True, ready=False) for each in workers(0, 0))
    unaware = replace(unaware, keeps_users_away=False)
    state = pool(replicas=3, holding=(slow, unaware, *workers(0, 0, 1)[2:]))
    assert decide_once(pipeline(in_flight=1), state)[0].replicas == 2


def test_the_least_busy_are_cordoned_and_who_is_cordoned_stays_so() -> None:
    first = pool(replicas=3, at_most=2, holding=workers(9, 4, 7))
    assert decide_once(pipeline(in_flight=20), first)[0].cordon == ("rollout-1",)
    busy, cordoned, idle = workers(9, 4, 0)
    second = pool(replicas=3, at_most=2, holding=(busy, replace(cordoned, cordoned=True, ready=False), idle))
    assert decide_once(pipeline(in_flight=13), second)[0].cordon == ("rollout-1",)


def test_a_worker_that_starts_or_is_broken_is_cordoned_before_one_that_works() -> None:
    healthy, cordoned, _ = workers(9, 4, 0)
    broken = replace(workers(20)[0], name="broken", ready=False, answered=False, started=False, version=0)
    state = pool(replicas=3, at_most=2, holding=(healthy, replace(cordoned, cordoned=True, ready=False), broken))
    assert decide_once(pipeline(in_flight=33), state)[0].cordon == ("broken",)


def test_cordons_are_lifted_at_once_for_demand_before_a_new_worker_is_asked_for() -> None:
    slow = tuple(replace(worker, cordoned=True, ready=False) for worker in workers(3, 5))
    busy = tuple(replace(worker, name=f"busy-{at}") for at, worker in enumerate(workers(64, 64)))
    state = pool(replicas=4, holding=(*slow, *busy))
    (one_more,) = decide_once(pipeline(waiting=200, in_flight=136), state)
    assert (one_more.replicas, one_more.cordon) == (4, ("rollout-0",))
    (many_more,) = decide_once(pipeline(waiting=600, in_flight=136), state)
    assert (many_more.replicas, many_more.cordon) == (6, ())


def test_within_the_band_cordoned_workers_are_not_called_back() -> None:
    slow = tuple(replace(worker, cordoned=True, ready=False) for worker in workers(3, 5))
    state = pool(replicas=4, holding=(*slow, *workers(0, 0, 60, 60)[2:]))
    # 190 samples: 2 are enough and 3 comfortable.
    (decision,) = decide_once(pipeline(waiting=62, in_flight=128), state)
    assert (decision.replicas, len(decision.cordon)) == (4, 2)


def test_a_new_leader_goes_on_with_the_cordons_that_it_finds() -> None:
    slow = replace(workers(3)[0], cordoned=True, ready=False)
    emptied = replace(workers(0)[0], name="emptied", cordoned=True, ready=False)
    (decision,) = decide_once(pipeline(in_flight=9), pool(replicas=3, holding=(slow, emptied, *workers(0, 6)[1:])))
    assert (decision.replicas, decision.cordon) == (2, ("emptied", "rollout-0"))


def test_kubernetes_must_not_stop_a_worker_with_work_in_place_of_an_emptied_one() -> None:
    """Who is not ready goes before the cheapest."""
    emptied = replace(workers(0)[0], name="emptied", cordoned=True)
    slow = replace(workers(3)[0], cordoned=True, ready=False)
    state = pool(replicas=3, holding=(slow, emptied, *workers(0, 6)[1:]))
    assert decide_once(pipeline(in_flight=9), state)[0].replicas == 3


def test_a_worker_that_answers_a_user_holds_work() -> None:
    state = pool(replicas=3, at_least=0, holding=workers(0, 0, 0, users=[1]))
    assert size_after(600, pipeline(), state).replicas == 1


def test_no_pool_has_cordons_while_it_is_sized_by_hand_or_redis_is_away() -> None:
    held = tuple(replace(worker, cordoned=True) for worker in workers(3, 5))
    for state in (pool(replicas=2, fixed=1, holding=held), pool(replicas=2, paused=True, holding=held)):
        assert decide_once(pipeline(), state)[0].cordon == ()
    assert decide_once(None, pool(replicas=2, holding=held))[0].cordon == ()


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
    state = pool(replicas=3, holding=(silent, *workers(0, 0, 0)[1:]))
    held = size_after(600, pipeline(), state)
    assert (held.replicas, held.reason) == (3, Reason.HOLDING)
    assert size_after(0, pipeline(waiting=1280), state).replicas == 10


def test_a_cordoned_worker_that_does_not_answer_may_have_users_though_it_is_not_ready() -> None:
    silent = replace(workers(0)[0], answered=False, ready=False, cordoned=True)
    state = pool(replicas=2, holding=(silent, *workers(0, 0)[1:]))
    held = decide_once(pipeline(), state)[0]
    assert (held.replicas, held.reason, held.cordon) == (2, Reason.HOLDING, ("rollout-0",))


def test_a_worker_that_has_not_started_need_not_answer() -> None:
    starting = tuple(replace(each, answered=False, ready=False, started=False, version=0) for each in workers(0, 0, 0))
    assert size_after(65, pipeline(), pool(replicas=3, holding=starting)).replicas == 1


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


def test_a_lower_maximum_counts_at_once_but_for_workers_with_work() -> None:
    state = pool(replicas=10, at_most=4, holding=workers(*[64] * 10))
    (decision,) = decide_once(pipeline(in_flight=640), state)
    assert (decision.replicas, len(decision.cordon), decision.reason) == (10, 6, Reason.WORK_IN_HAND)
    assert decision.message.endswith("; at most 4; 6 workers are emptied first, then 4 do")
    assert size_after(5, pipeline(in_flight=640), state, they_finish=True).replicas == 4
    assert decide_once(pipeline(in_flight=640), pool(replicas=10, at_most=4))[0].replicas == 4


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
