"""The reward model loss against numbers worked out by hand."""

import math

import pytest
import torch

from onlinerlhf.algorithms.preference import preference_loss, ranking_pairs


def test_two_responses_give_minus_log_sigmoid_of_the_gap() -> None:
    loss, stats = preference_loss(torch.tensor([[2.0, 1.0]]), ranking_pairs(torch.tensor([[0, 1]])))

    # log(1 + e^-1)
    assert loss.item() == pytest.approx(0.3132617)
    assert stats.pair_accuracy == 1.0


def test_three_responses_average_their_three_pairs() -> None:
    loss, stats = preference_loss(torch.tensor([[0.0, 1.0, 3.0]]), ranking_pairs(torch.tensor([[1, 0, 2]])))

    # pairs (1,0): gap 1; (1,2): gap -2; (0,2): gap -3
    by_hand = (math.log1p(math.exp(-1)) + math.log1p(math.exp(2)) + math.log1p(math.exp(3))) / 3
    assert loss.item() == pytest.approx(by_hand)
    assert stats.pair_accuracy == pytest.approx(1 / 3)


def test_a_prompt_with_many_responses_weighs_as_much_as_one_with_few() -> None:
    scores = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 9.0, 9.0]])
    ranks = torch.tensor([[0, 1, 2, 3], [0, 1, -1, -1]])

    loss, _ = preference_loss(scores, ranking_pairs(ranks))

    assert loss.item() == pytest.approx((math.log(2) + 0.3132617) / 2)


def test_a_full_ranking_of_k_has_k_choose_two_pairs() -> None:
    assert int(ranking_pairs(torch.arange(9)[None]).sum()) == 36


def test_ties_and_missing_responses_are_not_pairs() -> None:
    mask = ranking_pairs(torch.tensor([[0, 0, 2, -1]]))

    assert mask.nonzero().tolist() == [[0, 0, 2], [0, 1, 2]]


def test_masked_scores_get_no_gradient() -> None:
    scores = torch.tensor([[1.0, 0.0, 5.0]], requires_grad=True)

    loss, _ = preference_loss(scores, ranking_pairs(torch.tensor([[0, 1, -1]])))
    loss.backward()  # type: ignore[no-untyped-call]

    assert scores.grad is not None
    assert scores.grad[0].tolist() == pytest.approx([-0.2689414, 0.2689414, 0.0])


def test_a_prompt_without_a_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        preference_loss(torch.tensor([[1.0, 2.0]]), ranking_pairs(torch.tensor([[0, 0]])))
