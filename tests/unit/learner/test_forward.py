import torch

from onlinerlhf.algorithms.batching import ScoredRollout, pad_batch
from onlinerlhf.learner.forward import micro_batch, response_logprobs, response_values
from padded_passes import token_values
from unit.learner.tiny import random_rollouts, tiny_policy, tiny_value


def _alone(rollout: ScoredRollout) -> torch.Tensor:
    return torch.tensor([[*rollout.prompt_ids, *rollout.response_ids]])


def test_a_packed_pass_gives_each_row_what_a_pass_of_its_own_gives() -> None:
    policy, rollouts = tiny_policy(), random_rollouts(6)
    batch = pad_batch(rollouts)
    found = response_logprobs(policy, micro_batch(batch, [0, 1, 2, 3, 4, 5]))
    for row, rollout in enumerate(rollouts):
        start, end = len(rollout.prompt_ids), len(rollout.prompt_ids) + len(rollout.response_ids)
        logits = policy(input_ids=_alone(rollout)).logits[0]
        for t in range(start, end):
            expected = torch.log_softmax(logits[t - 1], dim=-1)[rollout.response_ids[t - start]]
            torch.testing.assert_close(found[row, t], expected, atol=1e-5, rtol=0)
        assert found[row, :start].eq(0).all()
        assert found[row, end:].eq(0).all()


def test_temperature_divides_the_logits() -> None:
    policy = tiny_policy()
    cold = ScoredRollout(
        prompt_ids=(4, 5, 6), response_ids=(7, 8), behaviour_logprobs=(-1.0, -1.0), score=0.0, temperature=0.5
    )
    found = response_logprobs(policy, micro_batch(pad_batch([cold]), [0]))
    logits = policy(input_ids=_alone(cold)).logits[0] / 0.5
    torch.testing.assert_close(found[0, 3], torch.log_softmax(logits[2], dim=-1)[7], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[0, 4], torch.log_softmax(logits[3], dim=-1)[8], atol=1e-5, rtol=0)


def test_a_value_is_of_the_state_before_its_token() -> None:
    value, rollouts = tiny_value(), random_rollouts(5)
    found = response_values(value, micro_batch(pad_batch(rollouts), [0, 1, 2, 3, 4]))
    for row, rollout in enumerate(rollouts):
        ids = _alone(rollout)
        after = token_values(value, ids, torch.ones_like(ids))[0]
        start = len(rollout.prompt_ids)
        for t in range(start, ids.shape[1]):
            torch.testing.assert_close(found[row, t], after[t - 1], atol=1e-5, rtol=0)


def test_rows_are_cut_to_the_longest_of_the_micro_batch() -> None:
    batch = pad_batch(random_rollouts(6))
    shortest = min(range(6), key=lambda row: batch.lengths[row])
    micro = micro_batch(batch, [shortest])
    assert micro.response_mask.shape == (1, batch.lengths[shortest])
    assert torch.equal(micro.take(batch.input_ids), micro.packed.input_ids)


def test_no_rows_make_a_pass_that_counts_for_nothing() -> None:
    policy = tiny_policy()
    micro = micro_batch(pad_batch(random_rollouts(2)), [])
    logprobs = response_logprobs(policy, micro)
    assert logprobs.shape == (0, 0)
    logprobs.sum().backward()  # type: ignore[no-untyped-call]
    gradients = [parameter.grad for parameter in policy.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)
