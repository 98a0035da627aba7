import pytest
import torch

from onlinerlhf.algorithms.policy_loss import importance_weights, policy_loss


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
    mask = torch.tensor([[False, True, True, True], [False, True, True, False]])
    found = importance_weights(
        old_logprobs=old, behaviour_logprobs=torch.zeros(2, 4), response_mask=mask, max_weight=2.0
    )
    assert not found.weights.requires_grad


def test_the_weight_is_1_outside_the_response_even_where_the_bound_is_below_1() -> None:
    found = importance_weights(
        old_logprobs=torch.tensor([[torch.nan, -1.0]]),
        behaviour_logprobs=torch.tensor([[0.0, -1.0]]),
        response_mask=torch.tensor([[False, True]]),
        max_weight=0.5,
    )
    assert found.weights.tolist() == [[1.0, 0.5]]
