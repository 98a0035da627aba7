"""The parts of the recipe that one may turn: the mix, the average, the KL controller, estimators without a critic."""

import copy
import dataclasses
import logging
import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from onlinerlhf.algorithms.batching import ScoredRollout
from onlinerlhf.core.errors import ConfigError, NonFiniteLoss
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.ppo_config import PPOConfig
from onlinerlhf.learner.ppo_state import exported, gather, restore, scalars
from onlinerlhf.learner.pretraining_mix import PretrainingMix
from onlinerlhf.models.packed import pack, packed_token_logprobs
from unit.learner.tiny import random_rollouts, tiny_policy, tiny_ppo, tiny_value

TEXTS = tuple(" ".join("abcdefgh"[place % 8] for place in range(start, start + 9)) for start in range(12))


def _mix(**settings: int) -> PretrainingMix:
    return PretrainingMix(TEXTS, lambda text: [ord(letter) % 61 for letter in text], max_tokens=16, seed=3, **settings)


def _with_mix(*, ptx_coef: float = 1.0, **settings: Any) -> PPO:
    ppo = tiny_ppo(ptx_coef=ptx_coef, ptx_examples_per_rollout=1, **settings)
    ppo.mix = _mix()
    return ppo


def _nll(ppo: PPO) -> float:
    packed = pack([[ord(letter) % 61 for letter in text][:16] for text in TEXTS])
    with torch.no_grad():
        return -packed_token_logprobs(ppo.policy, packed, packed.position_ids[0] > 0).mean().item()


def test_the_mix_keeps_the_pretraining_loss_from_rising() -> None:
    plain, mixed = tiny_ppo(learning_rate=3e-3), _with_mix(learning_rate=3e-3)
    before = _nll(plain)
    for seed in range(5):
        plain.step(random_rollouts(8, seed=seed))
        found = mixed.step(random_rollouts(8, seed=seed))
    assert found.ptx_nll is not None and found.ptx_nll < before
    assert _nll(mixed) < before < _nll(plain)


def test_the_mix_is_added_to_the_gradient_and_does_not_shrink_it() -> None:
    """With one minibatch, PPO-ptx's gradient is PPO's plus the mix's, each as it would be alone."""

    def gradient(ppo: PPO) -> torch.Tensor:
        kept: list[torch.Tensor] = []

        def keep() -> float:
            kept.extend(
                parameter.grad.flatten() for parameter in ppo.policy_optimizer.parameters if parameter.grad is not None
            )
            return 0.0

        ppo.policy_optimizer.clip_gradients = keep  # type: ignore[method-assign]
        ppo.step(rollouts)
        return torch.cat(kept)

    rollouts = random_rollouts(8)
    alone = gradient(tiny_ppo(num_minibatches=1))
    mixed = gradient(_with_mix(num_minibatches=1, ptx_coef=27.8))
    silent = _with_mix(num_minibatches=1, ptx_coef=27.8)
    mix_only = gradient_of_mix(silent)
    torch.testing.assert_close(mixed, alone + mix_only, atol=2e-5, rtol=1e-4)
    assert mix_only.norm() > 1.0


def gradient_of_mix(ppo: PPO) -> torch.Tensor:
    examples = _mix().take(8)
    num_tokens = sum(len(example) - 1 for example in examples)
    packed = pack(examples)
    loss = -27.8 * packed_token_logprobs(ppo.policy, packed, packed.position_ids[0] > 0).sum() / num_tokens
    return torch.cat([found.flatten() for found in torch.autograd.grad(loss, ppo.policy_optimizer.parameters)])


def test_a_failed_step_gives_its_pretraining_examples_back() -> None:
    ppo = _with_mix()
    ppo.step(random_rollouts(4))
    assert ppo.mix is not None
    position = ppo.mix.position
    average = [shadow.clone() for shadow in ppo.ema.shadow] if ppo.ema else []
    with pytest.raises(NonFiniteLoss):
        ppo.step([dataclasses.replace(rollout, score=math.nan) for rollout in random_rollouts(4)])
    assert ppo.mix.position == position == 4
    assert ppo.ema is not None and all(map(torch.equal, ppo.ema.shadow, average))


def test_each_epoch_of_the_mix_has_every_text_once_in_another_order() -> None:
    mix = _mix()
    first, second = mix.take(12), mix.take(12)
    assert sorted(map(tuple, first)) == sorted(map(tuple, second))
    assert first != second
    assert max(len(ids) for ids in first) == 16
    resumed = _mix()
    resumed.position = 12
    assert resumed.take(12) == second


def test_texts_without_two_tokens_are_passed_over_and_a_mix_of_nothing_else_is_refused() -> None:
    mix = PretrainingMix(["a", "ab"], lambda text: list(text.encode()), max_tokens=8, seed=0)
    assert mix.take(3) == [[97, 98]] * 3
    with pytest.raises(ConfigError, match="no text of the pretraining mix has two tokens"):
        PretrainingMix(["a", ""], lambda text: list(text.encode()), max_tokens=8, seed=0).take(1)
    with pytest.raises(ConfigError, match="has no texts"):
        PretrainingMix([], lambda text: list(text.encode()), max_tokens=8, seed=0)


def test_the_average_follows_every_update_and_leaves_the_policy_alone() -> None:
    ppo = tiny_ppo(num_minibatches=2, ema_decay=0.9)
    assert ppo.ema is not None
    seen: list[list[torch.Tensor]] = [[p.detach().clone() for p in ppo.ema.parameters]]
    update = ppo.ema.update

    def watched() -> None:
        assert ppo.ema is not None
        seen.append([parameter.detach().clone() for parameter in ppo.ema.parameters])
        update()

    ppo.ema.update = watched  # type: ignore[method-assign]
    ppo.step(random_rollouts(8))
    start, first, second = seen
    for shadow, at_start, after_one, after_two in zip(ppo.ema.shadow, start, first, second, strict=True):
        expected = 0.9 * (0.9 * at_start + 0.1 * after_one) + 0.1 * after_two
        torch.testing.assert_close(shadow, expected, atol=1e-6, rtol=1e-5)
    name = ppo.policy_optimizer.names[0]
    assert not torch.equal(exported(ppo, averaged=True)[name], second[0])
    assert all(map(torch.equal, ppo.ema.parameters, second))


def test_adaptive_kl_moves_the_coefficient_towards_its_target() -> None:
    low, high = tiny_ppo(kl_target_per_sequence_nats=1e-3), tiny_ppo(kl_target_per_sequence_nats=1e3)
    for ppo in (low, high):
        ppo.reference = tiny_policy(seed=7)
        found = ppo.step(random_rollouts(8))
        assert found.kl_coef == 0.02
    too_far = abs(found.kl_per_sequence_nats) > 1e-3 and found.kl_per_sequence_nats > 0
    assert low.kl_coef == pytest.approx(0.02 * (1.02 if too_far else 0.98))
    assert high.kl_coef == pytest.approx(0.02 * 0.98)
    assert high.step(random_rollouts(8)).kl_coef == pytest.approx(0.02 * 0.98)


def test_a_step_that_moves_the_policy_too_far_is_cut_short_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    ppo = tiny_ppo(num_minibatches=4, learning_rate=0.1, warmup_steps=0, max_update_kl_nats=0.01)
    with caplog.at_level(logging.WARNING):
        found = ppo.step(random_rollouts(16))
    assert found.num_updates < 4
    (record,) = caplog.records
    assert "lower learning_rate" in record.message
    assert vars(record)["updates_left_out"] == 4 - found.num_updates
    assert vars(record)["moved_nats_per_token"] > 0.01
    assert all(parameter.grad is None for parameter in ppo.policy.parameters())
    calm = tiny_ppo(num_minibatches=4, learning_rate=1e-5)
    assert calm.step(random_rollouts(16)).num_updates == 4


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_without_a_critic_the_better_of_two_responses_becomes_likelier(estimator: str) -> None:
    config = PPOConfig(
        advantage_estimator=estimator,  # type: ignore[arg-type]
        num_minibatches=2, learning_rate=5e-3, warmup_steps=0, kl_coef=0.0,
    )  # fmt: skip
    policy = tiny_policy()
    ppo = PPO(policy=policy, reference=copy.deepcopy(policy), value=None, config=config)
    prompt = (5, 6, 7)

    def probability() -> float:
        with torch.no_grad():
            return torch.softmax(policy(input_ids=torch.tensor([prompt])).logits[0, -1], dim=-1)[9].item()

    before = probability()
    for _ in range(5):
        found = ppo.step(
            [
                ScoredRollout(
                    prompt_ids=prompt,
                    response_ids=(token,),
                    behaviour_logprobs=(-4.0,),
                    score=float(token == 9),
                    group=group,
                )
                for group, tokens in enumerate([(9, 10), (9, 11), (12, 9), (13, 9)])
                for token in tokens
            ]
        )
    assert probability() > 2 * before
    assert found.value_loss is None and found.explained_variance is None
    assert not any(part.startswith("value") for part in gather(ppo))


def test_an_estimator_and_its_value_network_go_together() -> None:
    with pytest.raises(ValueError, match="gae needs value network"):
        PPO(policy=tiny_policy(), reference=tiny_policy(), value=None, config=PPOConfig())
    with pytest.raises(ValueError, match="rloo takes no value network"):
        PPO(
            policy=tiny_policy(),
            reference=tiny_policy(),
            value=tiny_value(),
            config=PPOConfig(advantage_estimator="rloo"),
        )


def test_missing_eos_is_replaced_or_penalised_in_what_is_reported() -> None:
    rollouts = [
        dataclasses.replace(rollout, score=1.0, is_finished=row % 2 == 0)
        for row, rollout in enumerate(random_rollouts(8))
    ]
    assert tiny_ppo().step(rollouts).score_mean == pytest.approx(1.0)
    replaced = tiny_ppo(missing_eos_replace=-1.0).step(rollouts)
    assert replaced.score_mean == pytest.approx(0.0)
    assert replaced.finished_share == 0.5
    assert tiny_ppo(missing_eos_penalty=0.5).step(rollouts).score_mean == pytest.approx(0.75)
    with pytest.raises(ValidationError, match="exclude each other"):
        PPOConfig(missing_eos_replace=-1.0, missing_eos_penalty=0.5)


def test_whitened_rewards_need_a_critic() -> None:
    assert tiny_ppo(whiten_rewards=True).step(random_rollouts(8)).num_updates == 2
    with pytest.raises(ValidationError, match="rloo takes one a sequence"):
        PPOConfig(advantage_estimator="rloo", whiten_rewards=True)


def test_a_checkpoint_of_another_recipe_is_refused() -> None:
    plain, mixed = tiny_ppo(), _with_mix()
    with pytest.raises(ValueError, match="with a pretraining mix"):
        restore(plain, gather(mixed), scalars(mixed))
    without_average = tiny_ppo(ema_decay=None)
    with pytest.raises(ValueError, match="it holds ema, policy, value; expected policy, value"):
        restore(without_average, gather(plain), scalars(plain))


def test_mix_average_and_coefficient_are_resumed() -> None:
    original = _with_mix(kl_target_per_sequence_nats=2.0)
    original.step(random_rollouts(8))
    resumed = _with_mix(kl_target_per_sequence_nats=2.0)
    restore(resumed, gather(original), scalars(original))
    assert original.step(random_rollouts(8, seed=2)) == resumed.step(random_rollouts(8, seed=2))
    assert original.ema is not None and resumed.ema is not None
    assert all(map(torch.equal, original.ema.shadow, resumed.ema.shadow))
    assert original.kl_coef == resumed.kl_coef
