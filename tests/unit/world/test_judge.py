"""What the gold judge stands for, as claims about every use case."""

import random

import pytest

from onlinerlhf.core.samples import UseCase
from onlinerlhf.world.draw import sample_task
from onlinerlhf.world.judge import compare, judge, win_rate
from onlinerlhf.world.tasks import Form, Spec, Task, Wanted

EVERY = tuple(UseCase)
NAME_TWO = Task(
    prompt="name two tools. use commas.",
    use_case=UseCase.BRAINSTORMING,
    spec=Spec(
        form=Form.COMMAS,
        count=2,
        wanted=(Wanted(words=frozenset({"pen", "net", "soap"}), count=2),),
        rivals=frozenset({"fox"}),
        max_words=6,
    ),
    good="pen, net",
    loose="there is pen and net.",
    wrong="fox, fox",
)


def tasks(use_case: UseCase) -> list[Task]:
    rng = random.Random(5)
    return [sample_task(rng, use_case) for _ in range(100)]


@pytest.mark.parametrize("use_case", EVERY)
def test_a_good_answer_scores_one(use_case: UseCase) -> None:
    assert all(judge(task, task.good).score == pytest.approx(1.0) for task in tasks(use_case))


@pytest.mark.parametrize("use_case", EVERY)
def test_correct_beats_wrong(use_case: UseCase) -> None:
    assert all(compare(task, task.good, task.wrong) == 1.0 for task in tasks(use_case))


@pytest.mark.parametrize("use_case", EVERY)
def test_the_form_asked_for_beats_another_form(use_case: UseCase) -> None:
    assert all(compare(task, task.good, task.loose) == 1.0 for task in tasks(use_case))


@pytest.mark.parametrize("use_case", EVERY)
def test_rambling_loses(use_case: UseCase) -> None:
    extra = " i hope this helps you. there is much more to say about this."
    assert all(compare(task, task.good + extra, task.good) == 0.0 for task in tasks(use_case))


@pytest.mark.parametrize("use_case", EVERY)
def test_right_content_in_another_form_beats_wrong_content(use_case: UseCase) -> None:
    assert all(compare(task, task.loose, task.wrong) == 1.0 for task in tasks(use_case))


def test_equal_answers_tie() -> None:
    assert compare(NAME_TWO, "pen, net", " net, soap") == 0.5


def test_an_empty_answer_scores_zero() -> None:
    assert judge(NAME_TWO, " ").score == 0.0


def test_half_of_the_items_is_half_correct() -> None:
    verdict = judge(NAME_TWO, "pen, cat")

    assert verdict.correct == 0.5
    assert verdict.form == 1.0
    assert verdict.score == pytest.approx(0.5 * 0.5 + 0.25 + 0.25)


def test_naming_a_rival_takes_a_hit_away() -> None:
    assert judge(NAME_TWO, "pen, fox").correct == 0.0


def test_twice_the_words_allowed_is_not_concise_at_all() -> None:
    assert judge(NAME_TWO, "pen " * 9).concise == 0.5
    assert judge(NAME_TWO, "pen " * 12).concise == 0.0


def test_wilson_interval_of_130_wins_in_200() -> None:
    rate = win_rate([1.0] * 130 + [0.0] * 70)

    assert rate.rate == 0.65
    assert rate.low == pytest.approx(0.5816, abs=2e-4)
    assert rate.high == pytest.approx(0.7127, abs=2e-4)
    assert rate.num_prompts == 200


def test_ties_count_as_half_a_win() -> None:
    assert win_rate([1.0, 0.5, 0.5, 0.0]).rate == 0.5


def test_no_outcomes_have_no_win_rate() -> None:
    with pytest.raises(ValueError, match="at least one"):
        win_rate([])
