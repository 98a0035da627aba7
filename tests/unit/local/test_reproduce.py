"""What the reproduction concludes from its numbers, and how it writes them down."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from onlinerlhf.core.errors import ConfigError, OnlineRLHFError
from onlinerlhf.local.reproduce.claims import claims, given_back
from onlinerlhf.local.reproduce.command import demand
from onlinerlhf.local.reproduce.layout import BASE, PPO, PROMPTED, PTX, SFT, SeedDirectory
from onlinerlhf.local.reproduce.measure import Answers, Measured
from onlinerlhf.local.reproduce.people import People
from onlinerlhf.local.reproduce.prompting import NEXT_QUESTION
from onlinerlhf.local.reproduce.relay import Receiver, Sender
from onlinerlhf.local.reproduce.report import Account, write_report
from onlinerlhf.local.reproduce.results import Results, SeedResult
from onlinerlhf.local.reproduce.settings import FAST, MINIATURE
from onlinerlhf.local.reproduce.statistics import compared, outcomes, pooled
from onlinerlhf.world.tasks import is_held_out

NUM_PROMPTS = 300
SHARES = {BASE: 0.1, PROMPTED: 0.3, SFT: 0.5, PPO: 0.75, PTX: 0.74}
LOSSES = {BASE: 1.0, PROMPTED: 1.0, SFT: 1.2, PPO: 1.6, PTX: 1.3}


def test_outcomes_are_wins_ties_and_losses() -> None:
    assert outcomes([1.0, 0.5, 0.2], [0.5, 0.5, 0.7]) == [1.0, 0.5, 0.0]


def test_seeds_count_alike_however_many_prompts_they_have() -> None:
    assert pooled([[1.0] * 10, [0.0] * 1000]).value == 0.5


def test_the_pooled_interval_is_wider_than_the_prompts_alone_would_make_it_when_seeds_differ() -> None:
    alike = compared([[1.0, 0.0] * 150] * 3).pooled
    unlike = compared([[1.0] * 300, [1.0, 0.0] * 150, [0.0] * 300]).pooled

    assert alike.value == unlike.value == 0.5
    assert alike.high - alike.low == pytest.approx(2 * 1.96 * 0.5 / 900**0.5, rel=0.1)
    assert unlike.high - unlike.low > 5 * (alike.high - alike.low)


def test_an_interval_needs_a_number_of_each_seed() -> None:
    with pytest.raises(ValueError, match="of each"):
        pooled([[0.5], []])


def test_all_claims_hold_when_the_numbers_say_so() -> None:
    found = claims(results())

    assert [claim.holds for claim in found] == [True] * 6
    assert "gives back 75% of the language-model loss" in found[3].text
    assert "1.0 points lower" in found[4].text


@pytest.mark.parametrize(
    ("shares", "losses", "failing"),
    [
        ({PPO: 0.5}, {}, [0]),
        ({PTX: 0.49}, {}, [1, 4]),
        ({PROMPTED: 0.5}, {}, [2]),
        ({}, {PTX: 1.33}, [3]),
        ({}, {PPO: 1.2}, [3]),
        ({PTX: 0.71}, {}, [4]),
    ],
)
def test_each_claim_fails_alone(shares: Mapping[str, float], losses: Mapping[str, float], failing: list[int]) -> None:
    found = claims(results(shares=shares, losses=losses))

    assert [place for place, claim in enumerate(found) if not claim.holds] == failing


def test_a_reward_model_that_does_not_know_strangers_fails_its_claim() -> None:
    found = claims(results(reward_model_ratio=0.89))

    assert [place for place, claim in enumerate(found) if not claim.holds] == [5]
    assert "89.0%" in found[5].text


def test_the_command_fails_when_a_claim_does() -> None:
    demand(claims(results()))

    with pytest.raises(OnlineRLHFError, match="1 of 6 claims do not hold"):
        demand(claims(results(losses={PTX: 1.33})))


def test_the_share_given_back_is_of_what_ppo_lost_since_sft_or_since_the_base_model() -> None:
    assert given_back(results()) == pytest.approx(0.75)
    assert given_back(results(), since=BASE) == pytest.approx(0.5)
    assert given_back(results(losses={PPO: 1.1})) is None


def test_the_report_has_the_claims_a_row_a_stage_and_both_pictures(tmp_path: Path) -> None:
    found = results()
    account = Account(settings=MINIATURE, seeds=(1, 2, 3), seconds=1800.0, claims=claims(found))

    page = write_report(found, account, tmp_path).read_text()

    assert page.count("\n- holds: ") == 6
    assert "| PPO-ptx | 74.0% (" in page
    assert "30 minutes" in page
    for picture in ("overoptimisation.png", "alignment-tax.png"):
        assert f"(reproduction/{picture})" in page
        assert (tmp_path / "reproduction" / picture).stat().st_size > 1000
    as_json = json.loads((tmp_path / "reproduction" / "reproduction.json").read_text())
    assert as_json["given_back_since_sft"] == pytest.approx(0.75)


def test_results_of_other_settings_are_refused(tmp_path: Path) -> None:
    SeedDirectory(root=tmp_path, settings=FAST, seed=1).claim()
    SeedDirectory(root=tmp_path, settings=FAST, seed=1).claim()

    with pytest.raises(ConfigError, match="other settings"):
        SeedDirectory(root=tmp_path, settings=MINIATURE, seed=1).claim()


def test_policies_are_compared_on_prompts_and_texts_that_training_never_saw() -> None:
    people = People(seed=5, settings=FAST)

    assert not {prompt.text for prompt in people.held_out} & {prompt.text for prompt in people.train}
    assert all(is_held_out(prompt.user_id) for prompt in people.held_out)
    assert not set(people.unseen_texts()) & set(people.pretraining_texts())
    assert len(people.unseen_texts()) == FAST.num_unseen_texts


def test_a_jobs_progress_is_shown_under_its_name() -> None:
    stream, shown = io.StringIO(), Shown()
    sender, receiver = Sender(stream), Receiver(shown, name="seed 1 ppo")
    sender.start("PPO", 60).advance(detail="reward 0.1", steps=2)
    sender.say("done")

    for line in [*stream.getvalue().splitlines(), "a warning", "7"]:
        receiver.take(line)

    assert shown.seen == [
        "start seed 1 ppo: PPO 60",
        "advance 2 reward 0.1",
        "say seed 1 ppo: done",
        "say seed 1 ppo: a warning",
        "say seed 1 ppo: 7",
    ]


class Shown:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def start(self, name: str, total: int) -> "Shown":
        self.seen.append(f"start {name} {total}")
        return self

    def advance(self, *, detail: str = "", steps: int = 1) -> None:
        self.seen.append(f"advance {steps} {detail}")

    def say(self, message: str) -> None:
        self.seen.append(f"say {message}")


def results(
    *,
    shares: Mapping[str, float] | None = None,
    losses: Mapping[str, float] | None = None,
    reward_model_ratio: float = 0.93,
) -> Results:
    """Three seeds in which each stage beats SFT on its share of the prompts."""
    shares, losses = {**SHARES, **(shares or {})}, {**LOSSES, **(losses or {})}
    return Results(seeds=tuple(seed_result(seed, shares, losses, reward_model_ratio) for seed in (1, 2, 3)))


def seed_result(
    seed: int, shares: Mapping[str, float], losses: Mapping[str, float], reward_model_ratio: float
) -> SeedResult:
    stages = {stage: measured(shares[stage], losses[stage], is_sft=stage == SFT) for stage in SHARES}
    points = [
        {"step": step, "watched_kl_nats": step / 10, "watched_gold": 0.6, "watched_reward": 0.1, "watched_lm_loss": 1.2}
        for step in (0, 10, 20)
    ]
    return SeedResult(
        seed=seed,
        stages=stages,
        averaged={PPO: stages[PPO], PTX: stages[PTX]},
        curves={PPO: points, PTX: points},
        prompted={"wording": "chat", "scores": {"chat": 0.4, "question": 0.3}},
        num_steps={PPO: 20, PTX: 20},
        seconds={"models": 300.0, PPO: 200.0, PTX: 400.0},
        bootstrap={
            "reward": {
                "held_out_labelers_accuracy": 0.84,
                "held_out_labelers_ceiling": 0.9,
                "held_out_labelers_ratio": reward_model_ratio,
                "calibration_error": 0.02,
            }
        },
    )


def measured(share: float, lm_loss: float, *, is_sft: bool) -> Measured:
    golds = [0.5 if is_sft else float(place < share * NUM_PROMPTS) for place in range(NUM_PROMPTS)]
    answers = Answers(
        texts=("a",) * NUM_PROMPTS, gold_scores=tuple(golds), reward_scores=(0.0,) * NUM_PROMPTS, kl_nats=1.0
    )
    return Measured(answers=answers, lm_loss=lm_loss)


def test_an_answer_ends_where_the_next_question_begins_whoever_is_said_to_ask_it() -> None:
    for answer in ("red, blue\nquestion: what?", "red, blue\nin a letter: question: what?", "red, blue"):
        assert NEXT_QUESTION.split(answer)[0] == "red, blue"
    assert NEXT_QUESTION.split("- red\n- a question, ana")[0] == "- red\n- a question, ana"
