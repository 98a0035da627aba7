"""Mistakes that others made in the same places: one test a trap, with the number that tells right from wrong."""

from math import log
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from onlinerlhf.algorithms.kl import adapted_kl_coef
from onlinerlhf.algorithms.masking import masked_whiten
from onlinerlhf.algorithms.policy_loss import importance_weights
from onlinerlhf.algorithms.rewards import kl_per_sequence, missing_eos_scores, token_rewards, whiten_rewards
from onlinerlhf.core.errors import ConfigError, InvalidInput
from onlinerlhf.core.samples import FinishReason, Rollout, RolloutGroup, SamplingSpec, ScoredGroup, VersionSpan
from onlinerlhf.learner.collector import scored_rollouts
from onlinerlhf.learner.ppo_config import PPOConfig
from onlinerlhf.models.scalar import load_reward_model, reward_scores, value_model_from_reward
from padded_passes import token_values
from prompts import a_prompt
from unit.learner.tiny import tiny_config, tiny_policy


def test_a_kl_target_is_in_nats_a_sequence_not_nats_a_token() -> None:
    # 0.08 nats on each of 100 tokens are 8 nats: above a target of 6, so the penalty must grow.
    kl, mask = torch.full((1, 100), 0.08), torch.ones(1, 100, dtype=torch.bool)
    nats = kl_per_sequence(kl=kl, response_mask=mask).mean().item()
    assert nats == pytest.approx(8.0)
    assert adapted_kl_coef(kl_coef=0.02, kl_per_sequence_nats=nats, target_nats_per_sequence=6.0) > 0.02
    # Read as a mean over tokens, a hundredth of it, the same KL would shrink the penalty, for ever.
    assert adapted_kl_coef(kl_coef=0.02, kl_per_sequence_nats=nats / 100, target_nats_per_sequence=6.0) < 0.02
    assert "kl_target_per_sequence_nats" in PPOConfig.model_fields


def test_a_missing_eos_is_replaced_or_penalised_and_each_says_which() -> None:
    scores, is_finished = torch.tensor([4.0, -4.0]), torch.tensor([False, False])
    replaced = missing_eos_scores(scores=scores, is_finished=is_finished, replace_with=-1.0)
    penalised = missing_eos_scores(scores=scores, is_finished=is_finished, penalty=1.0)
    # Replacement forgets which of the two was better, and even lifts the worse one; a penalty does neither.
    assert replaced.tolist() == [-1.0, -1.0]
    assert penalised.tolist() == [3.0, -5.0]
    with pytest.raises(ValueError, match="either replaced or penalised"):
        missing_eos_scores(scores=scores, is_finished=is_finished, replace_with=-1.0, penalty=1.0)
    with pytest.raises(ValueError, match="exclude each other"):
        PPOConfig(missing_eos_replace=-1.0, missing_eos_penalty=1.0)


def test_top_p_leaves_the_kept_mass_in_the_ratio_so_it_is_not_learned_from() -> None:
    # The same policy on both sides, but the sampler kept the likeliest 80% and scaled it up to 1: p / 0.8.
    old = torch.tensor([[log(0.5), log(0.3)]], dtype=torch.float64)
    found = importance_weights(
        old_logprobs=old,
        behaviour_logprobs=old - log(0.8),
        response_mask=torch.tensor([[True, True]]),
        max_weight=2.0,
    )
    # Where the ratio should be 1 it is the kept mass.
    assert found.weights[0].tolist() == pytest.approx([0.8, 0.8], abs=1e-12)
    with pytest.raises(InvalidInput, match=r"top_p 0\.8"):
        scored_rollouts(_sampled_with_top_p(0.8), vocab_size=8)


def _sampled_with_top_p(top_p: float) -> ScoredGroup:
    prompt = a_prompt(token_ids=(4,))
    rollout = Rollout(
        token_ids=(7, 2),
        behaviour_logprobs=(log(0.5 / 0.8), log(0.3 / 0.8)),
        version_spans=(VersionSpan(version=0, num_tokens=2),),
        finish_reason=FinishReason.EOS,
    )
    sampling = SamplingSpec(num_responses=1, max_tokens=8, top_p=top_p)
    group = RolloutGroup(prompt=prompt, sampling=sampling, rollouts=(rollout,), worker_id="w")
    return ScoredGroup(group=group, scores=(0.5,), reward_model_version="rm")


def test_rewards_whitened_without_a_shift_keep_the_kl_penalty_that_a_shift_would_cancel() -> None:
    # Nothing but KL: 1, 2 and 3 nats in a response of three tokens, 2 and 2 in one of two, at 0.02 a nat.
    mask = torch.tensor([[True, True, True], [True, True, False]])
    kl = torch.tensor([[1.0, 2.0, 3.0], [2.0, 2.0, 0.0]], dtype=torch.float64)
    scores = torch.zeros(2, dtype=torch.float64)
    rewards = token_rewards(scores=scores, kl=kl, response_mask=mask, kl_coef=0.02)
    # The penalty is 10 nats * 0.02 in all. Whitened, the five tokens' sum is still that.
    assert rewards.sum().item() == pytest.approx(-0.2)
    assert whiten_rewards(rewards, mask).sum().item() == pytest.approx(-0.2)
    # With a shift it is gone: five tokens far from the reference are paid as if they were on it.
    assert masked_whiten(rewards, mask).sum().item() == pytest.approx(0.0, abs=1e-12)


def test_the_critic_starts_from_the_reward_model_and_never_from_a_policy(tmp_path: Path) -> None:
    policy = tiny_policy(seed=1)
    torch.manual_seed(2)
    reward = AutoModelForSequenceClassification.from_config(tiny_config())
    reward.config.score_offset = 0.75
    reward.save_pretrained(tmp_path / "reward")
    value = value_model_from_reward(tmp_path / "reward")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        score = reward_scores(load_reward_model(tmp_path / "reward"), ids, torch.ones_like(ids))
        values = token_values(value, ids, torch.ones_like(ids))
    assert values[0, -1].item() == pytest.approx(score.item(), abs=1e-5)
    theirs, policys = reward.base_model.state_dict(), policy.base_model.state_dict()
    for name, tensor in value.base_model.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    assert any(not torch.equal(tensor, policys[name]) for name, tensor in theirs.items())


@pytest.mark.parametrize("num_labels", [1, 2])
def test_a_policys_directory_in_the_reward_models_place_is_refused(tmp_path: Path, num_labels: int) -> None:
    policy = tiny_policy()
    # transformers' default is 2; with 1 nothing but the missing head tells it from a reward model.
    policy.config.num_labels = num_labels
    policy.save_pretrained(tmp_path / "policy")
    for load in (load_reward_model, value_model_from_reward):
        with pytest.raises(ConfigError, match="lacks 1 weights"):
            load(tmp_path / "policy")
