from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForSequenceClassification

from onlinerlhf.algorithms.batching import pad_batch
from onlinerlhf.learner.build import build_ppo
from onlinerlhf.learner.config import LearnerConfig
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.models.scalar import load_reward_model, reward_scores
from padded_passes import token_values
from unit.learner.tiny import random_rollouts, tiny_config, tiny_policy


@pytest.fixture
def ppo(tmp_path: Path) -> PPO:
    """As the service builds it, from directories."""
    tiny_policy().save_pretrained(tmp_path / "policy")
    torch.manual_seed(3)
    reward = AutoModelForSequenceClassification.from_config(tiny_config())
    reward.config.score_offset = 0.75
    reward.save_pretrained(tmp_path / "reward")
    return build_ppo(
        LearnerConfig(policy_dir=tmp_path / "policy", reward_dir=tmp_path / "reward", output_dir=tmp_path / "out")
    )


def test_at_the_start_the_value_at_the_last_token_is_the_reward_models_score(ppo: PPO, tmp_path: Path) -> None:
    batch = pad_batch(random_rollouts(5))
    attention_mask = (torch.arange(batch.input_ids.shape[1]) < torch.tensor(batch.lengths).unsqueeze(1)).long()
    with torch.inference_mode():
        scores = reward_scores(load_reward_model(tmp_path / "reward"), batch.input_ids, attention_mask)
        assert ppo.value is not None
        values = token_values(ppo.value, batch.input_ids, attention_mask)
    last = torch.tensor(batch.lengths) - 1
    torch.testing.assert_close(values[torch.arange(5), last], scores, atol=1e-5, rtol=0)


def test_policy_reference_and_value_net_share_no_memory(ppo: PPO) -> None:
    places = [
        {parameter.data_ptr() for parameter in model.parameters()}
        for model in filter(None, (ppo.policy, ppo.reference, ppo.value))
    ]
    assert not places[0] & places[1]
    assert not places[0] & places[2]
    assert not any(parameter.requires_grad for parameter in ppo.reference.parameters())


def test_a_reward_model_is_required_just_where_a_value_network_starts_from_it(tmp_path: Path) -> None:
    tiny_policy().save_pretrained(tmp_path / "policy")
    places = {"policy_dir": tmp_path / "policy", "output_dir": tmp_path / "out"}
    with pytest.raises(ValidationError, match="reward_dir is required: advantage_estimator gae"):
        LearnerConfig.model_validate(places)
    ppo = build_ppo(LearnerConfig.model_validate({**places, "advantage_estimator": "rloo", "ema_decay": "none"}))
    assert ppo.value is None
    assert ppo.ema is None
