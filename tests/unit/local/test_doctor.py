"""What the doctor says about a snapshot."""

from onlinerlhf.core.samples import Stage
from onlinerlhf.local.doctor import Severity, diagnose
from onlinerlhf.local.snapshot import (
    ComponentView,
    ConsumerView,
    LearnerView,
    LedgerView,
    Limits,
    RolloutView,
    ServiceView,
    Snapshot,
    StageView,
    WorkersView,
)
from onlinerlhf.local.status import as_line

BUSY = LedgerView(admitted=10, trained=4, pending={"prompts": 6})


def lines(snapshot: Snapshot, earlier: Snapshot | None = None) -> list[str]:
    return [f"{each.severity}: {each.edge}: {each.message}" for each in diagnose(snapshot, earlier)]


def stage(backlog: int, *, idle: float = 0.5, pending: int = 0, dead: int = 0) -> StageView:
    reader = ConsumerView(name="reader-0", pending=pending, idle_seconds=idle)
    return StageView(backlog=backlog, consumers=(reader,), num_dead=dead)


def test_a_healthy_platform_at_work_has_no_findings() -> None:
    snapshot = Snapshot(
        services=(ServiceView(name="gateway", components=(ComponentView(name="redis", ok=True),)),),
        stages={Stage.PROMPTS: stage(6, pending=2)},
        ledger=BUSY,
        rollouts=(RolloutView(name="rollout-0", version=3),),
        learner=LearnerView(phase="collecting", batch_size=8),
    )
    assert lines(snapshot) == []


def test_a_service_that_does_not_answer_is_down() -> None:
    snapshot = Snapshot(services=(ServiceView(name="reward", error="no answer on 127.0.0.1:9 (UNAVAILABLE)"),))
    assert lines(snapshot) == ["broken: reward: down: no answer on 127.0.0.1:9 (UNAVAILABLE)"]


def test_a_component_that_is_not_ok_is_named_with_its_reason() -> None:
    part = ComponentView(name="disk", ok=False, reason="no space left", since_seconds=12.4)
    snapshot = Snapshot(services=(ServiceView(name="learner", components=(part,)),))
    assert lines(snapshot) == ["broken: learner: disk is not ok for 12 s: no space left"]


def test_redis_that_does_not_answer_is_broken_and_loses_nothing() -> None:
    snapshot = Snapshot(redis_error="Redis does not answer (ConnectionError)")
    expected = "Redis does not answer (ConnectionError); every service waits for it, nothing is lost"
    assert lines(snapshot) == [f"broken: redis: {expected}"]


def test_a_worker_that_takes_no_work_says_why() -> None:
    snapshot = Snapshot(rollouts=(RolloutView(name="rollout-0", ready=False, reason="3 versions behind"),))
    assert lines(snapshot) == ["broken: rollout-0: takes no work: 3 versions behind"]


def test_refused_updates_are_a_warning_on_the_edge_they_came_over() -> None:
    worker = RolloutView(name="rollout-0", num_updates_refused=2, last_refusal="checksum mismatch")
    expected = "warning: learner -> rollout-0: refused 2 weight updates: checksum mismatch"
    assert lines(Snapshot(rollouts=(worker,))) == [expected]


def test_a_backlog_that_no_consumer_reads_is_the_stuck_edge() -> None:
    snapshot = Snapshot(stages={Stage.ROLLOUTS: stage(9, idle=75.0)})
    expected = "broken: [rollouts] -> reward: 9 entries and no consumer that read in the last 60 s"
    assert lines(snapshot) == [expected]


def test_a_backlog_without_any_consumer_is_a_stuck_edge_too() -> None:
    assert [each.edge for each in diagnose(Snapshot(stages={Stage.SCORED: StageView(backlog=1)}))] == [
        "[scored] -> learner"
    ]


def test_sampling_that_rests_because_the_learner_is_behind_is_no_fault() -> None:
    snapshot = Snapshot(
        stages={Stage.PROMPTS: stage(9, idle=75.0), Stage.SCORED: stage(16)},
        limits=Limits(max_samples_ahead=16),
        ledger=BUSY,
    )
    findings = diagnose(snapshot)
    assert [(each.severity, each.edge) for each in findings] == [(Severity.NOTE, "[prompts] -> rollout")]


def test_entries_held_beyond_the_lease_name_their_holder() -> None:
    snapshot = Snapshot(stages={Stage.PROMPTS: stage(9, idle=45.0, pending=3)}, limits=Limits(lease_seconds=30.0))
    expected = "reader-0 holds 3 entries and gave no sign for 45 s (lease 30 s); another reader takes them over"
    assert lines(snapshot) == [f"warning: [prompts] -> rollout: {expected}"]


def test_dead_letters_that_grow_are_broken_and_old_ones_a_warning() -> None:
    before = Snapshot(stages={Stage.PROMPTS: stage(0, dead=2)})
    after = Snapshot(stages={Stage.PROMPTS: stage(0, dead=5)})
    expected = "broken: [prompts] -> rollout: dead letters grow: 3 new, 5 in [prompts.dead]"
    assert lines(after, before) == [expected]
    assert [each.severity for each in diagnose(after, after)] == [Severity.WARNING]


def test_a_ledger_that_does_not_balance_is_broken() -> None:
    ledger = LedgerView(admitted=10, trained=4, dropped={"stale": 1}, pending={"pool": 4}, imbalance=1)
    broken = [each for each in diagnose(Snapshot(ledger=ledger)) if each.edge == "ledger"]
    assert broken[0].message == "imbalance 1: 10 admitted, but 4 trained + 1 dropped + 4 pending"


def test_many_stale_drops_point_at_the_settings_that_cause_them() -> None:
    ledger = LedgerView(admitted=20, trained=8, dropped={"stale": 2}, pending={"pool": 10})
    found = [each.message for each in diagnose(Snapshot(ledger=ledger))]
    assert found == ["2 samples dropped as stale: lower rollout.max_samples_ahead or raise learner.max_staleness"]


def test_an_empty_pool_asks_for_prompts() -> None:
    expected = "note: clients -> gateway: the pool is empty: the run needs prompts (`onlinerlhf submit`)"
    assert lines(Snapshot(ledger=LedgerView(), learner=LearnerView())) == [expected]


def test_a_learner_that_waits_with_nothing_upstream_needs_more_prompts() -> None:
    snapshot = Snapshot(
        ledger=LedgerView(admitted=5, pending={"scored": 5}),
        stages={Stage.SCORED: stage(5, pending=5)},
        learner=LearnerView(phase="collecting", num_collected=5, batch_size=8),
    )
    expected = (
        "warning: clients -> learner: the learner has 5 of the 8 rollouts of a batch and nothing is on its way: "
        "submit more prompts or raise gateway.max_epochs"
    )
    assert lines(snapshot) == [expected]


def test_the_worst_comes_first() -> None:
    snapshot = Snapshot(
        services=(ServiceView(name="reward", error="gone"),),
        rollouts=(RolloutView(name="rollout-0", num_updates_refused=1, last_refusal="NaN"),),
        ledger=LedgerView(),
        learner=LearnerView(),
    )
    severities = [each.severity for each in diagnose(snapshot)]
    assert severities == [Severity.BROKEN, Severity.WARNING, Severity.NOTE]


def test_a_learner_that_stopped_after_skipped_steps_says_once_what_to_do() -> None:
    reason = "stopped at the checkpoint of step 2: 3 steps in a row were undone; lower learning_rate"
    part = ComponentView(name="training", ok=False, reason=reason, since_seconds=7.0)
    snapshot = Snapshot(
        services=(ServiceView(name="learner", components=(part,)),),
        learner=LearnerView(phase="stopped", step=3, checkpoint_step=2, last_error=reason),
    )
    assert lines(snapshot) == [f"broken: learner: training is not ok for 7 s: {reason}"]
    assert "(stopped 0/0)" in as_line(snapshot)
    assert f"learner/training: {reason}" in as_line(snapshot)


def test_a_worker_that_drains_or_starts_for_the_first_time_is_no_fault() -> None:
    part = ComponentView(name="engine", ok=False, reason="vLLM is starting", since_seconds=3.0)
    snapshot = Snapshot(
        services=(
            ServiceView(name="rollout-0", state="draining", error="no answer on 127.0.0.1:9 (UNAVAILABLE)"),
            ServiceView(name="rollout-1", state="starting", components=(part,)),
        ),
        rollouts=(
            RolloutView(name="rollout-0", state="draining", ready=False, reason="draining"),
            RolloutView(name="rollout-1", state="starting", ready=False, reason="no policy version applied yet"),
        ),
        workers=WorkersView(desired=1, current=1, ready=0, draining=1),
    )
    assert lines(snapshot) == [
        "note: rollout-0: draining: no answer on 127.0.0.1:9 (UNAVAILABLE)",
        "note: rollout-1: starting: engine: vLLM is starting",
    ]
    assert "rollout workers 0 of 1, 1 not ready, 1 draining" in as_line(snapshot)
    assert as_line(snapshot).endswith("all ok")


def test_a_worker_that_starts_again_and_again_is_a_fault() -> None:
    part = ComponentView(name="engine", ok=False, reason="vLLM is starting", since_seconds=3.0)
    snapshot = Snapshot(services=(ServiceView(name="rollout-0", state="starting", restarts=2, components=(part,)),))
    assert lines(snapshot) == ["broken: rollout-0: engine is not ok for 3 s: vLLM is starting"]


def test_a_worker_that_was_given_up_says_why_and_how_to_try_again() -> None:
    snapshot = Snapshot(services=(ServiceView(name="rollout-2", state="failed", error="does not start: no memory"),))
    expected = "broken: rollout-2: does not start: no memory; `onlinerlhf scale rollout N` tries again"
    assert lines(snapshot) == [expected]
    assert "rollout-2: does not start: no memory" in as_line(snapshot)


def test_no_workers_at_all_is_said_to_users_harm() -> None:
    snapshot = Snapshot(workers=WorkersView(desired=0, current=0, ready=0))
    expected = "0 workers are asked for: users get no answers, nothing is sampled (`onlinerlhf scale rollout 1`)"
    assert lines(snapshot) == [f"warning: rollout: {expected}"]
