import pytest
import torch

from onlinerlhf.algorithms.value_loss import value_loss

MASK = torch.tensor([[False, True, True, True]])


def test_the_clipped_loss_by_hand() -> None:
    values = torch.tensor([[torch.nan, 1.0, 0.1, 0.5]], requires_grad=True)
    found = value_loss(
        values=values,
        old_values=torch.tensor([[0.0, 0.5, 0.0, 1.0]]),
        returns=torch.tensor([[0.0, 1.0, 1.0, 0.0]]),
        response_mask=MASK,
        clip_range=0.2,
        num_tokens=3,
    )
    # V=1, R=1, clipped to 0.7: max(0, 0.09). V=0.1 within the range: 0.81. V=0.5 clipped to 0.8, R=0: max(0.25, 0.64).
    assert found.loss.item() == pytest.approx(0.5 * (0.09 + 0.81 + 0.64) / 3)
    assert found.clipfrac.item() == pytest.approx(2 / 3)
    (gradient,) = torch.autograd.grad(found.loss, values)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 0.0, -0.3, 0.0]]))


def test_the_numeric_gradient_agrees_on_a_ragged_mask_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    old_values, returns, noise = (torch.randn(4, 6, generator=generator, dtype=torch.float64) for _ in range(3))
    mask = torch.arange(6) < torch.tensor([6, 1, 3, 4]).unsqueeze(1)

    def loss(values: torch.Tensor) -> torch.Tensor:
        return value_loss(
            values=values, old_values=old_values, returns=returns, response_mask=mask, clip_range=0.2, num_tokens=14
        ).loss

    assert torch.autograd.gradcheck(loss, ((old_values + 0.3 * noise).requires_grad_(),))


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
