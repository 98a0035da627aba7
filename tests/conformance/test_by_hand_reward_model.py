"""The reward model's loss and bias, against numbers worked out by hand.

-log sigmoid(g): 0.1269280 at 2, 0.2014133 at 1.5, 0.3132617 at 1, 0.4740770 at 0.5, 0.9740770 at -0.5.
1 - sigmoid(g): 0.1192029 at 2, 0.1824255 at 1.5, 0.2689414 at 1, 0.3775407 at 0.5.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from onlinerlhf.algorithms.preference import preference_loss, ranking_pairs
from onlinerlhf.models.scalar import reward_scores

FOUR = torch.tensor([[2.0, 1.0, 0.5, 0.0]])


def test_two_responses_give_minus_log_sigmoid_of_the_gap() -> None:
    loss, stats = preference_loss(torch.tensor([[2.0, 1.0]]), ranking_pairs(torch.tensor([[0, 1]])))
    assert loss.item() == pytest.approx(0.3132617)
    assert stats.pair_accuracy == 1.0


def test_four_responses_average_their_six_pairs() -> None:
    scores = FOUR.clone().requires_grad_()
    loss, stats = preference_loss(scores, ranking_pairs(torch.tensor([[0, 1, 2, 3]])))
    # Gaps 1, 1.5, 2; 0.5, 1; 0.5: (0.3132617 + 0.2014133 + 0.1269280 + 0.4740770 + 0.3132617 + 0.4740770) / 6
    assert loss.item() == pytest.approx(0.3171698)
    assert stats.pair_accuracy == 1.0
    (gradient,) = torch.autograd.grad(loss, scores)
    # Each response: what it lost as the worse one, less what it missed as the better one, over 6.
    # -(0.2689414 + 0.1824255 + 0.1192029); 0.2689414 - 0.3775407 - 0.2689414;
    # 0.1824255 + 0.3775407 - 0.3775407; 0.1192029 + 0.2689414 + 0.3775407
    assert gradient[0].tolist() == pytest.approx([-0.0950950, -0.0629235, 0.0304043, 0.1276142], abs=1e-6)


def test_a_tie_is_no_pair() -> None:
    ranks = torch.tensor([[0, 1, 1, 2]])
    assert ranking_pairs(ranks).nonzero()[:, 1:].tolist() == [[0, 1], [0, 2], [0, 3], [1, 3], [2, 3]]
    loss, _ = preference_loss(FOUR, ranking_pairs(ranks))
    # Without the pair of the second and third: (6 * 0.3171698 - 0.4740770) / 5
    assert loss.item() == pytest.approx(0.2857884)


def test_a_partial_ranking_has_the_pairs_of_what_was_ranked() -> None:
    scores = torch.tensor([[2.0, torch.nan, 0.5, 0.0]], requires_grad=True)
    loss, stats = preference_loss(scores, ranking_pairs(torch.tensor([[0, -1, 2, 1]])))
    # Gaps 1.5, 2 and, the wrong way round, -0.5: (0.2014133 + 0.1269280 + 0.9740770) / 3
    assert loss.item() == pytest.approx(0.4341394)
    assert stats.pair_accuracy == pytest.approx(2 / 3)
    (gradient,) = torch.autograd.grad(loss, scores)
    # -(0.1824255 + 0.1192029); none; 0.1824255 + 0.6224593; 0.1192029 - 0.6224593, over 3
    assert gradient[0].tolist() == pytest.approx([-0.1005428, 0.0, 0.2682949, -0.1677521], abs=1e-6)


def test_a_prompt_with_many_responses_weighs_as_much_as_one_with_few() -> None:
    scores = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 9.0, 9.0]])
    loss, _ = preference_loss(scores, ranking_pairs(torch.tensor([[0, 1, 2, 3], [0, 1, -1, -1]])))
    # Six pairs of ln 2 and one of 0.3132617, but two prompts: (0.6931472 + 0.3132617) / 2
    assert loss.item() == pytest.approx(0.5032044)


class _LastTokenScorer(torch.nn.Module):
    """A reward model whose raw score is the id of the token it reads."""

    def __init__(self, *, score_offset: float) -> None:
        super().__init__()
        self.score = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(self.score.weight)
        self.config = SimpleNamespace(score_offset=score_offset)

    @property
    def base_model(self) -> Any:
        """Hidden states: the ids themselves."""
        return lambda input_ids, **_: SimpleNamespace(last_hidden_state=input_ids.unsqueeze(-1).float())


def test_the_bias_makes_demonstrations_score_0_on_average_and_leaves_every_gap_as_it_was() -> None:
    demonstrations = torch.tensor([[8, 8, 1], [8, 2, 0], [6, 0, 0]])
    there = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]])

    def scores(score_offset: float) -> torch.Tensor:
        model: Any = _LastTokenScorer(score_offset=score_offset)
        with torch.no_grad():
            return reward_scores(model, demonstrations, there)

    assert scores(0.0).tolist() == [1.0, 2.0, 6.0]
    centred = scores((1 + 2 + 6) / 3)
    assert centred.tolist() == [-2.0, -1.0, 3.0]
    pairs = ranking_pairs(torch.tensor([[0, 1, 2]]))
    assert preference_loss(centred[None], pairs) == preference_loss(scores(0.0)[None], pairs)
