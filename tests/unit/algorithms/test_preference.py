import pytest
import torch

from onlinerlhf.algorithms.preference import preference_loss, ranking_pairs


def test_a_full_ranking_of_k_has_k_choose_two_pairs() -> None:
    assert int(ranking_pairs(torch.arange(9)[None]).sum()) == 36


def test_a_prompt_without_a_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        preference_loss(torch.tensor([[1.0, 2.0]]), ranking_pairs(torch.tensor([[0, 0]])))
