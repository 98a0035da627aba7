"""The split: by key, of the asked share, whatever the order."""

import pytest

from onlinerlhf.core.errors import DataError
from onlinerlhf.learner.training.holdout import hold_out

ITEMS = [(f"user {number % 20}", number) for number in range(100)]


def test_no_key_is_on_both_sides_and_nothing_is_lost() -> None:
    train, held_out = hold_out(ITEMS, lambda item: item[0], share=0.25)

    assert sorted(train + held_out) == sorted(ITEMS)
    assert len({key for key, _ in held_out}) == 5
    assert {key for key, _ in train} & {key for key, _ in held_out} == set()


def test_the_split_depends_on_keys_and_seed_alone() -> None:
    _, held_out = hold_out(ITEMS, lambda item: item[0], share=0.25, seed=1)
    _, reversed_out = hold_out(ITEMS[::-1], lambda item: item[0], share=0.25, seed=1)
    _, other_seed = hold_out(ITEMS, lambda item: item[0], share=0.25, seed=2)

    assert sorted(held_out) == sorted(reversed_out) != sorted(other_seed)


def test_both_sides_get_something() -> None:
    assert [len(side) for side in hold_out(["a", "b"], str, share=0.01)] == [1, 1]
    assert [len(side) for side in hold_out(["a", "b"], str, share=0.99)] == [1, 1]


def test_one_user_alone_cannot_be_split() -> None:
    with pytest.raises(DataError, match="give a file of its own"):
        hold_out(["a", "a"], str)
