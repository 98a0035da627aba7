"""PPO's losses, the weights that correct for the sampler, the pretraining mix: against numbers worked out by hand."""

from math import log

import pytest
import torch

from onlinerlhf.algorithms.policy_loss import importance_weights, policy_loss
from onlinerlhf.algorithms.pretraining import pretraining_loss
from onlinerlhf.algorithms.value_loss import value_loss

MASK = torch.tensor([[False, True, True, True], [False, True, True, False]])


def _policy_loss(
    ratios: list[float], advantages: list[float], weights: list[float]
) -> tuple[float, list[float], float]:
    """Loss, gradient by the logprobs and clipped share of one response at clip 0.2, ten tokens in its minibatch."""
    old = torch.full((1, len(ratios)), -1.0, dtype=torch.float64)
    logprobs = (old + torch.tensor([ratios], dtype=torch.float64).log()).requires_grad_()
    found = policy_loss(
        logprobs=logprobs,
        old_logprobs=old,
        advantages=torch.tensor([advantages], dtype=torch.float64),
        weights=torch.tensor([weights], dtype=torch.float64),
        response_mask=torch.ones(1, len(ratios), dtype=torch.bool),
        clip_range=0.2,
        num_tokens=10,
    )
    (gradient,) = torch.autograd.grad(found.loss, logprobs)
    return found.loss.item(), gradient[0].tolist(), found.pg_clipfrac.item()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        # A good token, already much likelier: min(1.5, 1.2) * 2, no further push.
        (1.5, 2.0, -2.4, 0.0, 1),
        # A good token, become unlikely: 0.5 * 2, pulled back with full force.
        (0.5, 2.0, -1.0, -1.0, 0),
        # A bad token, become likely: 1.5 * 2, pushed down with full force.
        (1.5, -2.0, 3.0, 3.0, 0),
        # A bad token, already much less likely: max(0.5, 0.8) * 2, no further push.
        (0.5, -2.0, 1.6, 0.0, 1),
        # Within the range nothing is clipped: -1.1 * 3 and 0.9 * 3.
        (1.1, 3.0, -3.3, -3.3, 0),
        (0.9, -3.0, 2.7, 2.7, 0),
    ],
)
def test_each_side_of_the_clip_for_each_sign_of_the_advantage(
    ratio: float, advantage: float, loss: float, gradient: float, clipped: int
) -> None:
    # d/d logprob of -A rho is -A rho: the ratio's derivative is the ratio. All over ten tokens.
    found_loss, found_gradient, found_clipped = _policy_loss([ratio], [advantage], [1.0])
    assert found_loss == pytest.approx(loss / 10)
    assert found_gradient == pytest.approx([gradient / 10])
    assert found_clipped == pytest.approx(clipped / 10)


def test_the_samplers_weight_multiplies_loss_and_gradient_of_its_token() -> None:
    # 2 * -0.5 * 2 = -2 and 0.5 * 1.5 * 2 = 1.5
    loss, gradient, _ = _policy_loss([0.5, 1.5], [2.0, -2.0], [2.0, 0.5])
    assert loss == pytest.approx((-2.0 + 1.5) / 10)
    assert gradient == pytest.approx([-0.2, 0.15])


def test_the_policy_loss_of_a_ragged_batch() -> None:
    log_ratio = torch.tensor([[0.0, log(1.5), log(1.5), log(0.5)], [0.0, log(0.5), 0.0, torch.nan]])
    found = policy_loss(
        logprobs=log_ratio - 1,
        old_logprobs=torch.full((2, 4), -1.0),
        advantages=torch.tensor([[7.0, 1.0, -1.0, 2.0], [7.0, -2.0, 3.0, torch.nan]]),
        weights=torch.tensor([[1.0, 1.0, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0]]),
        response_mask=MASK,
        clip_range=0.2,
        num_tokens=5,
    )
    # -1.2 (clipped), 1.5, 2 * -1; 1.6 (clipped), -3
    assert found.loss.item() == pytest.approx((-1.2 + 1.5 - 2.0 + 1.6 - 3.0) / 5)
    assert found.pg_clipfrac.item() == pytest.approx(2 / 5)
    # 0.5 (2 * 0.405465^2 + 2 * 0.693147^2) / 5 = (0.164402 + 0.480453) / 5
    assert found.approx_kl.item() == pytest.approx(0.128971, abs=1e-6)


def test_the_importance_weight_is_truncated_at_2_and_its_numbers_count_response_tokens_only() -> None:
    behaviour = torch.tensor([[0.0, -1.0, -2.0, -3.0], [0.0, -1.0, -1.0, -9.0]])
    old = torch.tensor([[9.0, -1.0, -2.0 + log(3), -3.0 + log(0.25)], [9.0, -1.0 + log(1.5), -1.0, torch.nan]])
    found = importance_weights(old_logprobs=old, behaviour_logprobs=behaviour, response_mask=MASK, max_weight=2.0)
    # 1, 3 truncated to 2, 0.25; 1.5, 1: small weights are left as they are
    torch.testing.assert_close(found.weights, torch.tensor([[1.0, 1.0, 2.0, 0.25], [1.0, 1.5, 1.0, 1.0]]))
    assert found.mean == pytest.approx(5.75 / 5)
    assert found.maximum == pytest.approx(3.0)
    assert found.clipped_share == pytest.approx(1 / 5)


def test_the_value_loss_takes_the_larger_error_of_the_value_and_of_the_value_held_near_the_old_one() -> None:
    values = torch.tensor([[torch.nan, 1.0, 0.1, 0.5, 2.0]], requires_grad=True)
    found = value_loss(
        values=values,
        old_values=torch.tensor([[0.0, 0.5, 0.0, 1.0, 1.0]]),
        returns=torch.tensor([[0.0, 1.0, 1.0, 0.0, 0.5]]),
        response_mask=torch.tensor([[False, True, True, True, True]]),
        clip_range=0.2,
        num_tokens=4,
    )
    # V = 1, R = 1, held at 0.7: max(0, 0.09), slope 0.    V = 0.1 within the range: 0.9^2, slope -0.9.
    # V = 0.5, R = 0, held at 0.8: max(0.25, 0.64), slope 0. V = 2, R = 0.5, held at 1.2: max(2.25, 0.49), slope 1.5.
    assert found.loss.item() == pytest.approx(0.5 * (0.09 + 0.81 + 0.64 + 2.25) / 4)
    assert found.clipfrac.item() == pytest.approx(2 / 4)
    (gradient,) = torch.autograd.grad(found.loss, values)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 0.0, -0.225, 0.0, 0.375]]))


def test_the_pretraining_loss_is_gamma_times_the_mean_surprise() -> None:
    logprobs = torch.tensor([log(1 / 2), log(1 / 4)], dtype=torch.float64, requires_grad=True)
    loss = pretraining_loss(logprobs, coef=27.8, num_tokens=4)
    # 27.8 (ln 2 + ln 4) / 4 = 27.8 * 2.079442 / 4: half of a share of four tokens
    assert loss.item() == pytest.approx(14.452119, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert gradient.tolist() == pytest.approx([-6.95, -6.95])


def test_the_mix_is_added_to_ppos_gradient_not_averaged_with_it() -> None:
    logprob = torch.tensor([[-1.0]], requires_grad=True)
    policy_loss(
        logprobs=logprob,
        old_logprobs=torch.tensor([[-1.0]]),
        advantages=torch.tensor([[1.0]]),
        weights=torch.tensor([[1.0]]),
        response_mask=torch.tensor([[True]]),
        clip_range=0.2,
        num_tokens=1,
    ).loss.backward()  # type: ignore[no-untyped-call]
    for micro_batch in range(4):  # One of the mix's four tokens at a time.
        loss = pretraining_loss(logprob[0] * (micro_batch + 1), coef=27.8, num_tokens=4)
        loss.backward()  # type: ignore[no-untyped-call]
    assert logprob.grad is not None
    # -1 of PPO and -27.8 (1 + 2 + 3 + 4) / 4; a mean of the two would be half of it.
    assert logprob.grad.item() == pytest.approx(-1.0 - 69.5)
