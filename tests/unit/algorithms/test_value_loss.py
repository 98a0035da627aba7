import pytest
import torch

from onlinerlhf.algorithms.value_loss import value_loss


def test_micro_batches_add_up_to_the_minibatch() -> None:
    generator = torch.Generator().manual_seed(1)
    values, old_values, returns = (torch.randn(4, 6, generator=generator, dtype=torch.float64) for _ in range(3))
    mask = torch.arange(6) < torch.tensor([6, 1, 3, 4]).unsqueeze(1)

    def loss(rows: slice) -> float:
        return value_loss(
            values=values[rows],
            old_values=old_values[rows],
            returns=returns[rows],
            response_mask=mask[rows],
            clip_range=0.2,
            num_tokens=14,
        ).loss.item()

    assert loss(slice(0, 1)) + loss(slice(1, 4)) == pytest.approx(loss(slice(0, 4)), abs=1e-14)
