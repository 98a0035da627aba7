"""Who and what is held out."""

import pytest

from onlinerlhf.core.errors import DataError
from onlinerlhf.learner.training.data import Ranking
from onlinerlhf.learner.training.ranking_split import split_rankings, usable


def ranking(prompt: int, labeler: str = "ada", ranks: tuple[int, ...] = (0, 1)) -> Ranking:
    return Ranking(prompt=[prompt], responses=[[9 + place] for place in range(len(ranks))], ranks=[*ranks],
                   labeler=labeler)  # fmt: skip


def prompts(rankings: list[Ranking]) -> set[int]:
    return {each.prompt[0] for each in rankings}


def test_no_prompt_is_on_both_sides() -> None:
    split = split_rankings([ranking(number % 20) for number in range(60)], labelers=(), share=0.25, seed=0)

    assert len(prompts(split.new_prompts)) == 5
    assert len(prompts(split.train)) == 15
    assert not prompts(split.train) & prompts(split.new_prompts)
    assert split.new_labelers == []


def test_held_out_labelers_are_never_trained_on_nor_are_the_prompts_they_ranked() -> None:
    rows = [ranking(number, "ada") for number in range(20)] + [ranking(number, "eve") for number in range(15, 25)]

    split = split_rankings(rows, labelers=("eve",), share=0.1, seed=0)

    assert {each.labeler for each in split.train} == {"ada"}
    assert {each.labeler for each in split.new_prompts} == {"ada"}
    assert len(split.new_labelers) == 10
    assert not prompts(split.train) & prompts(split.held_out)
    assert len(split.train) + len(split.new_prompts) + split.num_set_aside == 20
    assert split.num_set_aside >= 3


def test_a_held_out_labeler_whom_nobody_knows_is_an_error() -> None:
    with pytest.raises(DataError, match="no ranking is by the held-out labeler 'mallory'"):
        split_rankings([ranking(1), ranking(2)], labelers=("mallory",), share=0.1, seed=0)


def test_holding_out_everybody_is_an_error() -> None:
    with pytest.raises(DataError, match="at least 2 different prompts"):
        split_rankings([ranking(1), ranking(2)], labelers=("ada",), share=0.1, seed=0)


def test_held_out_labelers_who_ranked_every_prompt_leave_nothing_to_train_on() -> None:
    rows = [ranking(number, labeler) for number in range(10) for labeler in ("ada", "eve")]

    with pytest.raises(DataError, match="hold out fewer"):
        split_rankings(rows, labelers=("eve",), share=0.1, seed=0)


def test_ties_teach_nothing_and_responses_that_were_not_ranked_are_left_out() -> None:
    kept = usable([ranking(1, ranks=(0, 0, 0)), ranking(2, ranks=(-1, -1, 0)), ranking(3, ranks=(1, -1, 0, 1))])

    assert prompts(kept) == {3}
    assert kept[0].ranks == [1, 0, 1]
    assert kept[0].responses == [[9], [11], [12]]
