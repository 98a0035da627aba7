"""What may be said about an answer."""

import math

import pytest

from onlinerlhf.core.errors import InvalidInput
from onlinerlhf.gateway.kept.judgements import (
    Correction,
    Judgement,
    Ranking,
    Score,
    Thumb,
    body_of,
    check,
    kind_of,
    samples_of,
    value_of,
)


def reason_of(judgement: Judgement) -> str | None:
    try:
        check(judgement, max_correction_bytes=10)
    except InvalidInput as error:
        return error.reason
    return None


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, -0.0])
def test_a_score_from_0_to_1_is_taken(value: float) -> None:
    assert reason_of(Score(sample_id="s", value=value)) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.01, 1.01])
def test_any_other_score_is_refused(value: float) -> None:
    assert reason_of(Score(sample_id="s", value=value)) == "bad_score"


@pytest.mark.parametrize("num", [2, 9])
def test_from_2_to_9_answers_can_be_ranked(num: int) -> None:
    assert reason_of(Ranking(sample_ids=tuple(f"s{place}" for place in range(num)))) is None


@pytest.mark.parametrize("ids", [(), ("a",), tuple("abcdefghij"), ("a", "b", "a")])
def test_fewer_more_or_repeated_answers_cannot(ids: tuple[str, ...]) -> None:
    assert reason_of(Ranking(sample_ids=ids)) == "bad_ranking"


def test_a_correction_may_have_so_many_bytes_and_no_more() -> None:
    assert reason_of(Correction(sample_id="s", text=b"x" * 10)) is None
    assert reason_of(Correction(sample_id="s", text=b"x" * 11)) == "too_large"


def test_a_ranking_keeps_its_order() -> None:
    assert samples_of(Ranking(sample_ids=("b", "a"))) == ("b", "a")
    assert samples_of(Thumb(sample_id="a", up=True)) == ("a",)


def test_what_is_stored_of_a_judgement_is_no_text_of_the_clients() -> None:
    assert (kind_of(Thumb(sample_id="s", up=False)), value_of(Thumb(sample_id="s", up=False))) == ("thumb", "false")
    assert (kind_of(Score(sample_id="s", value=0.25)), value_of(Score(sample_id="s", value=0.25))) == ("score", "0.25")
    assert value_of(Correction(sample_id="s", text=b"words")) == "null"


def test_different_judgements_have_different_bodies() -> None:
    judgements: list[Judgement] = [
        Thumb(sample_id="a", up=True),
        Thumb(sample_id="a", up=False),
        Thumb(sample_id="b", up=True),
        Score(sample_id="a", value=1.0),
        Correction(sample_id="a", text=b"x"),
        Correction(sample_id="a", text=b"y"),
        Ranking(sample_ids=("a", "b")),
        Ranking(sample_ids=("b", "a")),
        Ranking(sample_ids=("ab", "c")),
        Ranking(sample_ids=("a", "bc")),
    ]
    assert len({body_of(judgement) for judgement in judgements}) == 10
