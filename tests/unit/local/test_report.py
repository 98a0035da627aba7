"""The demo's report, its verdict, and when learning is over."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from onlinerlhf.core.errors import OnlineRLHFError
from onlinerlhf.core.samples import Stage
from onlinerlhf.local.demo import check, headline, new_run_dir
from onlinerlhf.local.demo_settings import DEMO, FAST, DemoSettings
from onlinerlhf.local.evaluate import Evaluation, JudgedAnswer, require_version
from onlinerlhf.local.learning import is_settled, is_starved
from onlinerlhf.local.report import Outcome, read_steps, write_report
from onlinerlhf.local.snapshot import LearnerView, LedgerView, RolloutView, Snapshot, StageView
from onlinerlhf.local.status import as_json, as_line
from onlinerlhf.world.judge import judge
from onlinerlhf.world.users import UserPrompt, prompts, users

STEP = {
    "step": 1.0,
    "version": 2.0,
    "time_seconds": 100.0,
    "score_mean": 0.25,
    "kl_per_sequence_nats": 1.5,
    "staleness_mean": 0.5,
    "staleness_max": 1.0,
}
LEDGER = LedgerView(admitted=64, trained=60, dropped={"stale": 1}, pending={"scored": 3})


def answered(prompt: UserPrompt, text: str, *, version: int) -> JudgedAnswer:
    return JudgedAnswer(prompt=prompt, text=text, version=version, gold_score=judge(prompt.task, text).score)


def outcome(*, num_good: int, num_prompts: int = 40) -> Outcome:
    """PPO is perfect on the first `num_good` prompts and as wrong as SFT on the rest."""
    asked = prompts(users(0).held_out, num_prompts, seed=random.Random(0).randrange(9))
    sft = tuple(answered(prompt, prompt.task.wrong, version=1) for prompt in asked)
    ppo = tuple(
        answered(prompt, prompt.task.good if index < num_good else prompt.task.wrong, version=9)
        for index, prompt in enumerate(asked)
    )
    return Outcome(
        run_id="demo",
        evaluation=Evaluation(sft=sft, ppo=ppo),
        num_submitted=128,
        versions_applied=8,
        ledger=LEDGER,
        seconds=123.4,
        phases={"models": 60.0, "PPO steps": 63.4},
        steps=[STEP, {**STEP, "step": 2.0, "version": 3.0, "time_seconds": 130.0}],
    )


def test_report_json_has_the_promised_fields(tmp_path: Path) -> None:
    write_report(outcome(num_good=40), tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["win_rate"] == 1.0
    assert report["win_rate_low"] > 0.9
    assert report["win_rate_high"] == 1.0
    assert (report["prompts"], report["versions_applied"], report["seconds"]) == (40, 8, 123.4)
    assert (report["ledger"]["admitted"], report["ledger"]["imbalance"]) == (64, 0)


def test_report_md_shows_the_win_rate_the_ledger_and_both_answers(tmp_path: Path) -> None:
    result = outcome(num_good=40)
    write_report(result, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "**100.0%** win rate of the PPO policy (version 9) over the SFT policy (version 1)" in text
    assert "admitted 64 = trained 60 + dropped 1 + pending 3; imbalance 0 (1 stale)" in text
    sft, ppo = result.evaluation.sft[0], result.evaluation.ppo[0]
    assert f"| {sft.gold_score:.2f} {sft.text.splitlines()[0]}" in text
    assert f"| {ppo.gold_score:.2f} {ppo.text.splitlines()[0]}" in text


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    write_report(outcome(num_good=1), tmp_path)
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_ties_count_half() -> None:
    assert outcome(num_good=0).evaluation.win_rate.rate == 0.5
    assert outcome(num_good=20).evaluation.win_rate.rate == 0.75


def test_a_win_rate_whose_interval_reaches_one_half_fails_the_demo() -> None:
    check(outcome(num_good=200, num_prompts=200), DEMO)
    with pytest.raises(OnlineRLHFError, match="not above 50%"):
        check(outcome(num_good=2), DEMO)
    check(outcome(num_good=2), FAST)


def test_a_demo_that_is_to_win_fails_on_every_demand_it_misses() -> None:
    short = replace(outcome(num_good=10), versions_applied=4)
    with pytest.raises(OnlineRLHFError) as failed:
        check(short, DEMO)
    said = str(failed.value).partition(": ")[2].split("; ")
    assert said == [
        "the win rate's 95% interval starts at 47.0%, not above 50%",
        "the win rate is 62.5%, below 65%",
        "40 prompts, not 200, compared",
        "4 versions applied in flight, not 5",
    ]
    check(short, FAST)


def test_a_ledger_that_does_not_balance_fails_the_demo() -> None:
    broken = replace(outcome(num_good=40), ledger=replace(LEDGER, imbalance=2))
    with pytest.raises(OnlineRLHFError, match="2 samples unaccounted for"):
        check(broken, FAST)


def test_the_headline_says_it_all_in_one_line() -> None:
    text = headline(outcome(num_good=40))
    assert text.startswith("PPO beats SFT on 100.0% of 40 held-out prompts (95% interval 91.")
    assert text.endswith("8 versions applied in flight; ledger imbalance 0; 123 s")


def test_two_sides_that_answered_different_prompts_cannot_be_compared() -> None:
    evaluation = outcome(num_good=1).evaluation
    with pytest.raises(ValueError, match="different prompts"):
        Evaluation(sft=evaluation.sft, ppo=evaluation.ppo[::-1])


def test_answers_of_another_version_are_not_taken_for_the_sft_policys() -> None:
    answers = outcome(num_good=1).evaluation.ppo
    require_version(answers, 9)
    with pytest.raises(OnlineRLHFError, match=r"version 1 was to answer, but \[9\] did"):
        require_version(answers, 1)


def test_the_demo_asks_enough_held_out_prompts_and_makes_whole_batches() -> None:
    assert DEMO.num_held_out >= 200
    assert DEMO.num_prompts * DEMO.max_epochs * DEMO.num_responses % DEMO.batch_size == 0
    assert DemoSettings(num_prompts=64, max_epochs=2, num_responses=2, batch_size=32).num_steps == 8


def test_learning_is_over_when_the_learner_collects_and_nothing_is_on_its_way() -> None:
    idle = Snapshot(learner=LearnerView(phase="collecting"), rollouts=(RolloutView(name="rollout-0"),))
    assert is_starved(idle)
    assert not is_starved(replace(idle, pool_new=1))
    assert not is_starved(replace(idle, stages={Stage.ROLLOUTS: StageView(backlog=1)}))
    assert not is_starved(replace(idle, rollouts=(RolloutView(name="rollout-0", num_in_flight=1),)))
    assert not is_starved(replace(idle, learner=LearnerView(phase="stepping")))
    assert not is_starved(replace(idle, redis_error="Redis does not answer"))


def test_the_workers_are_settled_when_all_serve_the_newest_version() -> None:
    workers = (RolloutView(name="rollout-0", version=5), RolloutView(name="rollout-1", version=4))
    assert not is_settled(Snapshot(learner=LearnerView(version=5), rollouts=workers))
    assert is_settled(Snapshot(learner=LearnerView(version=5), rollouts=workers[:1]))
    assert not is_settled(Snapshot(learner=LearnerView(version=5)))


def test_a_new_demo_never_goes_on_where_another_stopped(tmp_path: Path) -> None:
    assert new_run_dir(tmp_path, "demo") == tmp_path / "runs" / "demo"
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    assert new_run_dir(tmp_path, "demo") == tmp_path / "runs" / "demo-2"


def test_no_steps_were_made_before_the_learner_wrote_any(tmp_path: Path) -> None:
    assert read_steps(tmp_path / "steps.jsonl") == []


def test_the_plain_line_shows_backlogs_speed_learning_and_ledger() -> None:
    snapshot = Snapshot(
        pool_new=7,
        pool_reuse=2,
        stages={Stage.PROMPTS: StageView(backlog=3)},
        ledger=LEDGER,
        rollouts=(RolloutView(name="rollout-0", tokens_per_second=1234.0),),
        learner=LearnerView(
            step=1, version=2, phase="collecting", num_collected=4, batch_size=16, metrics={**STEP, "score_mean": 0.25}
        ),
    )
    assert as_line(snapshot) == (
        "pool 7+2 | prompts 3 rollouts 0 scored 0 | 1,234 tokens/s | rollout workers 1 of 1 | "
        "step 1 version 2 (collecting 4/16) reward 0.250 KL 1.50 nats/seq staleness 0.50 (max 1) | "
        "admitted 64 = trained 60 + dropped 1 + pending 3 (imbalance 0) | all ok"
    )


def test_status_for_programs_is_plain_json() -> None:
    record = json.loads(json.dumps(as_json(Snapshot(stages={Stage.SCORED: StageView(backlog=2)}, ledger=LEDGER))))
    assert record["stages"]["scored"]["backlog"] == 2
    assert record["ledger"]["dropped"] == {"stale": 1}
