from math import exp, log

import pytest
import torch

from onlinerlhf.algorithms.policy_loss import importance_weights, policy_loss

MASK = torch.tensor([[False, True, True, True], [False, True, True, False]])


def _ragged(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(5, 9, dtype=torch.bool)
    for row, (start, end) in enumerate([(0, 9), (2, 5), (8, 9), (4, 8), (1, 2)]):
        mask[row, start:end] = True
    names = ("logprobs", "old_logprobs", "advantages", "weights")
    tensors = {name: torch.randn(5, 9, generator=generator, dtype=torch.float64) for name in names}
    tensors["logprobs"] = tensors["old_logprobs"] + 0.3 * tensors["logprobs"]
    tensors["weights"] = tensors["weights"].abs()
    return {**tensors, "response_mask": mask}


def test_the_importance_weight_is_truncated_and_its_numbers_count_response_tokens_only() -> None:
    behaviour = torch.tensor([[0.0, -1.0, -2.0, -3.0], [0.0, -1.0, -1.0, -9.0]])
    old = torch.tensor([[9.0, -1.0, -2.0 + log(3), -3.0 + log(0.5)], [9.0, -1.0 + log(1.5), -1.0, torch.nan]])
    found = importance_weights(old_logprobs=old, behaviour_logprobs=behaviour, response_mask=MASK, max_weight=2.0)
    torch.testing.assert_close(found.weights, torch.tensor([[1.0, 1.0, 2.0, 0.5], [1.0, 1.5, 1.0, 1.0]]))
    assert found.mean == pytest.approx((1 + 2 + 0.5 + 1.5 + 1) / 5)
    assert found.maximum == pytest.approx(3.0)
    assert found.clipped_share == pytest.approx(0.2)


def test_the_clipped_loss_by_hand() -> None:
    log_ratio = torch.tensor([[0.0, log(1.5), log(1.5), log(0.5)], [0.0, log(0.5), 0.0, torch.nan]])
    advantages = torch.tensor([[7.0, 1.0, -1.0, 2.0], [7.0, -2.0, 3.0, torch.nan]])
    weights = torch.tensor([[1.0, 1.0, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
    found = policy_loss(
        logprobs=log_ratio - 1,
        old_logprobs=torch.full((2, 4), -1.0),
        advantages=advantages,
        weights=weights,
        response_mask=MASK,
        clip_range=0.2,
        num_tokens=5,
    )
    # A=1, ratio 1.5: clipped to -1.2. A=-1, ratio 1.5: not clipped, 1.5. A=2, ratio 0.5, weight 2: -1 * 2.
    # A=-2, ratio 0.5: clipped to 1.6. A=3, ratio 1: -3.
    assert found.loss.item() == pytest.approx((-1.2 + 1.5 - 2.0 + 1.6 - 3.0) / 5)
    assert found.pg_clipfrac.item() == pytest.approx(2 / 5)
    assert found.approx_kl.item() == pytest.approx(0.5 * (2 * log(1.5) ** 2 + 2 * log(0.5) ** 2) / 5, rel=1e-5)


def test_the_gradient_of_a_clipped_token_is_0_and_masked_nan_does_not_leak() -> None:
    log_ratio = torch.tensor([[0.0, log(1.5), 0.0, 0.0], [0.0, 0.0, 0.0, torch.nan]], requires_grad=True)
    loss = policy_loss(
        logprobs=log_ratio,
        old_logprobs=torch.zeros(2, 4),
        advantages=torch.ones(2, 4),
        weights=torch.ones(2, 4),
        response_mask=MASK,
        clip_range=0.2,
        num_tokens=5,
    ).loss
    (gradient,) = torch.autograd.grad(loss, log_ratio)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 0.0, -0.2, -0.2], [0.0, -0.2, -0.2, 0.0]]))


def test_the_loss_and_its_gradient_equal_a_token_by_token_reference_in_float64() -> None:
    case = _ragged(seed=1)
    logprobs = case["logprobs"].requires_grad_()
    num_tokens = int(case["response_mask"].sum())
    loss = policy_loss(**case, clip_range=0.2, num_tokens=num_tokens).loss
    (gradient,) = torch.autograd.grad(loss, logprobs)
    expected, slope = 0.0, torch.zeros(5, 9, dtype=torch.float64)
    for row, t in case["response_mask"].nonzero().tolist():
        advantage, weight = case["advantages"][row, t].item(), case["weights"][row, t].item()
        ratio = exp(logprobs[row, t].item() - case["old_logprobs"][row, t].item())
        expected += weight * max(-advantage * ratio, -advantage * min(max(ratio, 0.8), 1.2)) / num_tokens
        if not (advantage > 0 and ratio > 1.2) and not (advantage < 0 and ratio < 0.8):
            slope[row, t] = -weight * advantage * ratio / num_tokens
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    torch.testing.assert_close(gradient, slope, rtol=0, atol=1e-12)


def test_the_numeric_gradient_agrees() -> None:
    case = _ragged(seed=2)
    fixed = {name: tensor for name, tensor in case.items() if name != "logprobs"}

    def loss(logprobs: torch.Tensor) -> torch.Tensor:
        return policy_loss(logprobs=logprobs, **fixed, clip_range=0.2, num_tokens=18).loss

    assert torch.autograd.gradcheck(loss, (case["logprobs"].requires_grad_(),))


def test_micro_batches_add_up_to_the_minibatch() -> None:
    case = _ragged(seed=3)
    whole = policy_loss(**case, clip_range=0.2, num_tokens=18)
    parts = [
        policy_loss(**{name: tensor[rows] for name, tensor in case.items()}, clip_range=0.2, num_tokens=18)
        for rows in (slice(0, 1), slice(1, 4), slice(4, 5))
    ]
    assert sum(part.loss.item() for part in parts) == pytest.approx(whole.loss.item(), abs=1e-14)
    assert sum(part.pg_clipfrac.item() for part in parts) == pytest.approx(whole.pg_clipfrac.item())


def test_no_gradient_flows_through_the_importance_weight() -> None:
    old = torch.zeros(2, 4, requires_grad=True)
    found = importance_weights(
        old_logprobs=old, behaviour_logprobs=torch.zeros(2, 4), response_mask=MASK, max_weight=2.0
    )
    assert not found.weights.requires_grad
