"""The world is deterministic, covers its use cases, and keeps held-out users apart."""

import random
from collections import Counter
from itertools import islice

import pytest

from onlinerlhf.core.samples import UseCase
from onlinerlhf.world.demonstrations import WRITERS, Writer, demonstrations, write
from onlinerlhf.world.draw import sample_task, training_tasks
from onlinerlhf.world.judge import judge
from onlinerlhf.world.labeler import HELD_OUT_LABELERS, LABELERS, Labeler, gold_agreement, rank
from onlinerlhf.world.tasks import is_held_out, normalise
from onlinerlhf.world.text import SOURCES, STRANGERS, documents
from onlinerlhf.world.users import prompts, users


def test_the_same_seed_gives_the_same_world() -> None:
    assert list(islice(documents(seed=3), 50)) == list(islice(documents(seed=3), 50))
    assert list(islice(demonstrations(seed=3), 50)) == list(islice(demonstrations(seed=3), 50))
    assert prompts(users(0).train, 50, seed=3) == prompts(users(0).train, 50, seed=3)


def test_another_seed_gives_another_world() -> None:
    assert list(islice(documents(seed=3), 50)) != list(islice(documents(seed=4), 50))


def test_users_ask_for_all_ten_use_cases() -> None:
    asked = Counter(prompt.task.use_case for prompt in prompts(users(0).train, 1_000))

    assert set(asked) == set(UseCase)
    assert len(UseCase) == 10
    assert min(asked.values()) >= 50


def test_no_user_is_on_both_sides() -> None:
    split = users(0)

    train, held_out = ({user.user_id for user in side} for side in (split.train, split.held_out))
    assert not train & held_out
    assert len(train) >= 20
    assert len(held_out) >= 8


def test_a_user_stays_on_one_side_when_more_users_come() -> None:
    few, many = users(0, count=20), users(0, count=80)

    assert set(few.train) <= set(many.train)
    assert set(few.held_out) <= set(many.held_out)


def test_prompts_differ_across_users_and_sides() -> None:
    split = users(0)
    asked = [*prompts(split.train, 1_500), *prompts(split.held_out, 400)]

    assert len({normalise(prompt.text) for prompt in asked}) == 1_900
    assert max(Counter(prompt.user_id for prompt in asked).values()) <= 200


def test_train_and_held_out_users_never_share_a_prompt_even_from_other_seeds() -> None:
    split = users(0)
    train = {normalise(prompt.text) for seed in range(3) for prompt in prompts(split.train, 500, seed=seed)}

    assert not train & {normalise(prompt.text) for prompt in prompts(split.held_out, 400, seed=9)}


def test_training_tasks_are_never_held_out() -> None:
    held_out = {prompt.text for prompt in prompts(users(0).held_out, 400)}

    assert not held_out & {task.prompt for task in islice(training_tasks(random.Random(0)), 5_000)}


def test_more_prompts_than_users_may_ask_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 200"):
        prompts(users(0).train[:2], 401)


def test_the_side_of_a_text_ignores_case_and_spaces() -> None:
    assert is_held_out("What colour is the fox?") == is_held_out("what  colour is the fox ?")


def test_prompts_are_short() -> None:
    assert max(len(prompt.text.split()) for prompt in prompts(users(0).train, 1_000)) <= 40


def test_demonstrations_are_decent_but_leave_room() -> None:
    written = list(islice(demonstrations(seed=0), 2_000))
    scores = [judge(demonstration.task, demonstration.answer).score for demonstration in written]

    assert 0.65 < sum(scores) / len(scores) < 0.9
    assert 0.25 < sum(score > 0.999 for score in scores) / len(scores) < 0.6


def test_a_careful_writer_is_better_than_a_talkative_one() -> None:
    rng = random.Random(0)
    careful, talkative = WRITERS[0], WRITERS[1]
    tasks = [sample_task(rng) for _ in range(300)]

    def mean(writer: int) -> float:
        return sum(judge(task, write(task, (careful, talkative)[writer], rng)).score for task in tasks) / len(tasks)

    assert mean(0) > mean(1) + 0.1


def test_strangers_mind_what_was_asked_for_less_than_those_who_write_demonstrations() -> None:
    rng = random.Random(0)
    tasks = [sample_task(rng) for _ in range(2_000)]

    def mean(writers: tuple[Writer, ...]) -> float:
        return sum(judge(task, write(task, rng.choice(writers), rng)).score for task in tasks) / len(tasks)

    assert mean(STRANGERS) < mean(WRITERS) - 0.05


def test_pretraining_pages_name_their_source_now_and_then_and_some_hold_two_questions() -> None:
    pages = [document for document in islice(documents(seed=0), 5_000) if "question: " in document.lead]

    named = sum(page.lead.startswith(SOURCES) for page in pages) / len(pages)
    double = sum(page.lead.count("question: ") == 2 for page in pages) / len(pages)
    assert 0.4 < named < 0.6
    assert 0.2 < double < 0.4
    assert all(page.body.startswith("answer: ") and not page.is_chat for page in pages)


def test_a_labeler_without_noise_ranks_as_the_judge_does() -> None:
    task = sample_task(random.Random(1), UseCase.OPEN_QA)
    rambling = f"{task.good} i hope this helps you. some people may not agree with me. that is all i know."

    order = rank(task, [task.wrong, rambling, task.good, ""], Labeler(name="exact", noise=0.0), random.Random(0))

    assert order[0] == 2
    assert order[3] == 3


def test_labelers_see_equal_texts_as_one_response() -> None:
    task = sample_task(random.Random(1))

    order = rank(task, [task.good, task.wrong, task.good, task.wrong], LABELERS[2], random.Random(0))

    assert {order[0], order[1]} in ({0, 2}, {1, 3})


def test_labelers_rank_four_to_nine_responses() -> None:
    task = sample_task(random.Random(1))
    for count in (3, 10):
        with pytest.raises(ValueError, match="4 to 9"):
            rank(task, ["a"] * count, LABELERS[0], random.Random(0))


def test_the_gold_judges_agreement_with_a_ranking_counts_pairs_and_ties_half() -> None:
    demonstration = next(iter(demonstrations(seed=0)))
    responses = [demonstration.answer, demonstration.answer, ""]  # an empty answer scores 0
    assert gold_agreement(demonstration.task, responses, [0, 1, 2]) == pytest.approx(2.5 / 3)
    assert gold_agreement(demonstration.task, responses, [1, 1, 0]) == 0.0
    with pytest.raises(ValueError, match="different ranks"):
        gold_agreement(demonstration.task, responses, [0, 0, 0])


def test_labelers_who_are_only_measured_on_are_other_people_with_other_noise() -> None:
    assert not {labeler.name for labeler in LABELERS} & {labeler.name for labeler in HELD_OUT_LABELERS}
    assert not {labeler.noise for labeler in LABELERS} & {labeler.noise for labeler in HELD_OUT_LABELERS}
