import dataclasses
import math

import pytest
import torch

from onlinerlhf.algorithms.batching import ScoredRollout, pad_batch
from onlinerlhf.core.errors import NonFiniteLoss, StartupError
from onlinerlhf.learner.forward import micro_batch, response_logprobs
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.ppo_config import PPOConfig
from onlinerlhf.learner.ppo_state import gather, restore, scalars
from unit.learner.tiny import random_rollouts, tiny_policy, tiny_ppo, tiny_value


def _weights(ppo: PPO) -> dict[str, torch.Tensor]:
    return {f"{part}.{name}": tensor.clone() for part, found in gather(ppo).items() for name, tensor in found.items()}


def _on_policy(ppo: PPO, count: int, *, seed: int = 0) -> list[ScoredRollout]:
    """Rollouts whose behaviour logprobs are the policy's own."""
    rollouts = random_rollouts(count, seed=seed)
    batch = pad_batch(rollouts)
    with torch.inference_mode():
        logprobs = response_logprobs(ppo.policy, micro_batch(batch, list(range(count))))
    return [
        dataclasses.replace(rollout, behaviour_logprobs=tuple(logprobs[row][batch.response_mask[row]].tolist()))
        for row, rollout in enumerate(rollouts)
    ]


def test_the_result_does_not_depend_on_how_minibatches_are_split_into_micro_batches() -> None:
    rollouts = random_rollouts(12)
    whole, split = tiny_ppo(micro_batch_tokens=10_000), tiny_ppo(micro_batch_tokens=40)
    for _ in range(2):
        first, second = whole.step(rollouts), split.step(rollouts)
    for name, number in dataclasses.asdict(first).items():
        expected = None if number is None else pytest.approx(number, rel=1e-4, abs=1e-5)
        assert getattr(second, name) == expected, name
    weights = _weights(whole)
    for name, tensor in _weights(split).items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-3, atol=2e-5, msg=name)


def test_at_the_first_step_the_reference_is_the_policy_and_the_kl_is_0() -> None:
    ppo = tiny_ppo()
    first = ppo.step(_on_policy(ppo, 8))
    assert first.kl_per_sequence_nats == pytest.approx(0.0, abs=1e-5)
    assert first.is_weight_mean == pytest.approx(1.0, abs=1e-5)
    assert first.is_weight_clipped_share == 0.0
    assert first.reward_mean == pytest.approx(first.score_mean)
    assert ppo.step(_on_policy(ppo, 8)).kl_per_sequence_nats != pytest.approx(0.0, abs=1e-4)


def test_kl_is_reported_in_nats_summed_over_the_sequence() -> None:
    ppo = tiny_ppo()
    ppo.reference = tiny_policy(seed=7)
    rollouts = random_rollouts(4)
    batch = pad_batch(rollouts)
    with torch.inference_mode():
        micro = micro_batch(batch, [0, 1, 2, 3])
        per_token = response_logprobs(ppo.policy, micro) - response_logprobs(ppo.reference, micro)
    expected = per_token.sum(dim=1).mean().item()
    found = ppo.step(rollouts)
    assert found.kl_per_sequence_nats == pytest.approx(expected, rel=1e-4)
    assert found.reward_mean == pytest.approx(found.score_mean - 0.02 * expected, rel=1e-4)


def test_repeated_steps_make_a_rewarded_token_likelier() -> None:
    ppo = tiny_ppo(learning_rate=5e-3, warmup_steps=0, kl_coef=0.0)
    prompt = (5, 6, 7)

    def probability() -> float:
        with torch.inference_mode():
            return torch.softmax(ppo.policy(input_ids=torch.tensor([prompt])).logits[0, -1], dim=-1)[9].item()

    before = probability()
    for _ in range(5):
        rollouts = [
            ScoredRollout(prompt_ids=prompt, response_ids=(token,), behaviour_logprobs=(-4.0,), score=float(token == 9))
            for token in (9, 10, 9, 11, 9, 12, 9, 13)
        ]
        ppo.step(rollouts)
    assert probability() > 2 * before


def test_a_loss_that_is_not_finite_leaves_everything_as_it_was() -> None:
    ppo = tiny_ppo()
    ppo.step(random_rollouts(8))
    before, generator = _weights(ppo), ppo.generator.get_state()
    poison = [dataclasses.replace(rollout, score=math.nan) for rollout in random_rollouts(8, seed=1)]
    with pytest.raises(NonFiniteLoss, match="not finite at step 2"):
        ppo.step(poison)
    assert ppo.num_steps == 1
    assert torch.equal(ppo.generator.get_state(), generator)
    after = _weights(ppo)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(parameter.grad is None for parameter in ppo.policy.parameters())


def test_an_update_that_fails_after_another_was_applied_takes_that_one_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = tiny_ppo(num_minibatches=2)
    ppo.step(random_rollouts(8))
    before = _weights(ppo)
    norms = iter([1.0, math.inf])
    monkeypatch.setattr(ppo.policy_optimizer, "clip_gradients", lambda: next(norms))
    with pytest.raises(NonFiniteLoss, match="policy gradient"):
        ppo.step(random_rollouts(8, seed=1))
    after = _weights(ppo)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_failed_step_can_be_followed_by_a_good_one_as_if_it_had_not_been() -> None:
    failed, clean = tiny_ppo(), tiny_ppo()
    poison = [dataclasses.replace(rollout, score=math.inf) for rollout in random_rollouts(8)]
    with pytest.raises(NonFiniteLoss):
        failed.step(poison)
    failed.step(random_rollouts(8, seed=1))
    clean.step(random_rollouts(8, seed=1))
    expected = _weights(clean)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in _weights(failed).items())


def test_a_step_whose_numbers_cannot_be_gathered_is_undone_too(monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = tiny_ppo()
    before = _weights(ppo)

    def no_memory(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr("onlinerlhf.learner.ppo.describe_step", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        ppo.step(random_rollouts(4))
    assert ppo.num_steps == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in _weights(ppo).items())


def test_a_step_that_cannot_be_undone_ends_the_learner(monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = tiny_ppo()

    def gone(_: object) -> None:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(ppo.value_optimizer, "restore", gone)
    poison = [dataclasses.replace(rollout, score=math.inf) for rollout in random_rollouts(4)]
    with pytest.raises(StartupError, match="could not be undone: the device is gone"):
        ppo.step(poison)


def test_the_learning_rate_rises_over_ten_steps_from_a_tenth_of_its_peak() -> None:
    ppo = tiny_ppo(learning_rate=1e-4)
    rates = [ppo.policy_optimizer.learning_rate(num_steps) for num_steps in (0, 5, 10, 500)]
    assert rates == pytest.approx([1e-5, 5.5e-5, 1e-4, 1e-4])
    assert ppo.step(random_rollouts(4)).learning_rate == pytest.approx(1e-5)
    assert ppo.step(random_rollouts(4)).learning_rate == pytest.approx(1.9e-5)


def test_the_value_net_shares_no_parameter_with_the_policy() -> None:
    ppo = tiny_ppo()
    assert ppo.value is not None
    policy = {parameter.data_ptr() for parameter in ppo.policy.parameters()}
    assert not policy & {parameter.data_ptr() for parameter in ppo.value.parameters()}


def test_a_value_net_that_is_the_policy_is_refused() -> None:
    policy = tiny_policy()
    value = tiny_value()
    value.base_model.embed_tokens.weight = policy.base_model.embed_tokens.weight
    with pytest.raises(ValueError, match="shares"):
        PPO(policy=policy, reference=tiny_policy(), value=value, config=PPOConfig())


def test_dropout_is_off_in_every_pass() -> None:
    policy = tiny_policy()
    policy.train()
    ppo = PPO(policy=policy, reference=tiny_policy().train(), value=tiny_value().train(), config=PPOConfig())
    models = filter(None, (ppo.policy, ppo.reference, ppo.value))
    assert not any(module.training for model in models for module in model.modules())


def test_the_reference_never_moves() -> None:
    ppo = tiny_ppo()
    before = {name: tensor.clone() for name, tensor in ppo.reference.state_dict().items()}
    ppo.step(random_rollouts(8))
    assert all(torch.equal(tensor, before[name]) for name, tensor in ppo.reference.state_dict().items())


def test_state_gathered_and_restored_goes_on_as_if_nothing_had_happened() -> None:
    original, resumed = tiny_ppo(), tiny_ppo()
    original.step(random_rollouts(8))
    restore(resumed, gather(original), scalars(original))
    first, second = original.step(random_rollouts(8, seed=2)), resumed.step(random_rollouts(8, seed=2))
    assert first == second
    expected = _weights(original)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in _weights(resumed).items())
