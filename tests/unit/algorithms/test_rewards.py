import pytest
import torch

from onlinerlhf.algorithms.rewards import missing_eos_scores


def test_a_negative_penalty_would_be_a_bonus_and_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        missing_eos_scores(scores=torch.tensor([1.0]), is_finished=torch.tensor([False]), penalty=-1.0)
