"""The reference's gradients are derived by hand; here they are held against the slopes of its own losses."""

import random
from collections.abc import Callable
from functools import partial

import pytest

from conformance import reference
from conformance.cases import Case, random_cases
from conformance.reference import Loss, Rows


def _slopes(loss: Callable[[Rows], float], at: Rows, *, step: float = 1e-6) -> Rows:
    """Central differences, entry by entry."""
    slopes = []
    for row, numbers in enumerate(at):
        slopes.append([0.0] * len(numbers))
        for t, number in enumerate(numbers):
            sides = []
            for moved in (number + step, number - step):
                changed = [list(other) for other in at]
                changed[row][t] = moved
                sides.append(loss(changed))
            slopes[row][t] = (sides[0] - sides[1]) / (2 * step)
    return slopes


def _policy_loss(case: Case) -> Callable[[Rows], Loss]:
    old, advantages, weights = (case.rows(name) for name in ("old_logprobs", "advantages", "weights"))
    return lambda logprobs: reference.policy_loss(
        logprobs, old, advantages, weights, clip_range=case.clip_range, num_tokens=case.num_tokens
    )


def _value_loss(case: Case) -> Callable[[Rows], Loss]:
    old, returns = case.rows("old_values"), case.rows("returns")
    return lambda values: reference.value_loss(
        values, old, returns, clip_range=case.clip_range, num_tokens=case.num_tokens
    )


def _number(loss: Callable[[Rows], Loss], at: Rows) -> float:
    return loss(at).loss


@pytest.mark.parametrize(("name", "loss_of"), [("logprobs", _policy_loss), ("values", _value_loss)])
def test_the_gradients_of_policy_and_value_loss(name: str, loss_of: Callable[[Case], Callable[[Rows], Loss]]) -> None:
    for case in random_cases()[:40]:
        at, loss = case.rows(name), loss_of(case)
        slopes = _slopes(partial(_number, loss), at)
        assert reference.flat(loss(at).gradient) == pytest.approx(reference.flat(slopes), abs=1e-7)


def test_the_pair_loss_gradient() -> None:
    draw = random.Random(0)
    scores = [[draw.gauss(0, 2) for _ in range(6)] for _ in range(5)]
    ranks = [[0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 2, 2], [1, 0, -1, -1, -1, -1], [3, 0, 0, -1, 5, 0], [5, 4, 3, 2, 1, 0]]
    slopes = _slopes(lambda rows: reference.pair_loss(rows, ranks)[0], scores)
    assert reference.flat(reference.pair_loss(scores, ranks)[1]) == pytest.approx(reference.flat(slopes), abs=1e-8)


def test_the_gradient_through_a_table_of_logits() -> None:
    draw = random.Random(1)
    table = [[draw.gauss(0, 1) for _ in range(4)] for _ in range(3)]
    places = [(draw.randrange(3), draw.randrange(4)) for _ in range(12)]

    def loss(logits: Rows) -> float:
        logprobs = [reference.log_softmax(logits[state])[token] for state, token in places]
        return reference.pretraining_loss(logprobs, coef=27.8, num_tokens=12)

    found = reference.table_gradient(table, places, [-27.8 / 12] * 12)
    assert reference.flat(found) == pytest.approx(reference.flat(_slopes(loss, table)), abs=1e-7)
