"""Sequences of like length share a pass, and none is left out."""

from onlinerlhf.reward.engine import length_batches


def test_like_lengths_share_a_pass_and_the_padded_size_stays_within_the_budget() -> None:
    assert list(length_batches([9, 2, 10, 3], batch_tokens=20)) == [[1, 3], [0, 2]]


def test_a_sequence_over_the_budget_goes_alone() -> None:
    assert list(length_batches([100, 1], batch_tokens=20)) == [[1], [0]]


def test_every_index_comes_exactly_once() -> None:
    lengths = [7, 1, 5, 5, 3, 30, 2]
    batches = list(length_batches(lengths, batch_tokens=12))
    assert sorted(index for batch in batches for index in batch) == list(range(7))
    assert all(len(batch) * max(lengths[i] for i in batch) <= 12 or len(batch) == 1 for batch in batches)


def test_nothing_gives_nothing() -> None:
    assert list(length_batches([], batch_tokens=12)) == []
