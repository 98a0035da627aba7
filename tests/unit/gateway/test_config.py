from dataclasses import fields
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from onlinerlhf.gateway.access.callers import KeyClass, Limits
from onlinerlhf.gateway.config import GatewayConfig, LimitsConfig
from onlinerlhf.gateway.pii.policy import Policy


def test_the_defaults_are_those_of_the_recipe() -> None:
    config = GatewayConfig(model_dir=Path("model"), rollout_target="127.0.0.1:1")
    assert (config.max_prompt_bytes, config.max_prompt_tokens, config.prompts_per_user) == (32_768, 1_000, 200)
    assert config.listen.startswith("127.0.0.1:")


def test_a_default_answer_longer_than_the_longest_is_a_mistake() -> None:
    with pytest.raises(ValidationError, match=r"default_max_tokens \(256\) exceeds max_response_tokens \(100\)"):
        GatewayConfig(model_dir=Path("model"), rollout_target="127.0.0.1:1", max_response_tokens=100)


def test_both_fronts_listen_on_loopback_unless_told_otherwise() -> None:
    config = GatewayConfig(model_dir=Path("model"), rollout_target="127.0.0.1:1")
    assert config.http_listen is not None
    assert [config.listen.split(":")[0], config.http_listen.split(":")[0]] == ["127.0.0.1", "127.0.0.1"]


def test_personal_data_is_kept_out_of_training_unless_told_otherwise() -> None:
    config = GatewayConfig(model_dir=Path("model"), rollout_target="127.0.0.1:1")
    assert config.pii_policy == dict.fromkeys(KeyClass, Policy.DROP)


def test_splits_that_leave_nothing_to_train_on_are_a_mistake() -> None:
    with pytest.raises(ValidationError, match="leave nothing to train on"):
        GatewayConfig(model_dir=Path("model"), rollout_target="127.0.0.1:1", valid_share=0.5, test_share=0.5)


@pytest.mark.parametrize("secret", ["xyzzy", "xyzzy" * 20, "xyzzy \u00e9" * 3])
def test_a_hash_key_that_does_not_do_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(ValidationError) as refused:
        GatewayConfig(model_dir=Path("model"), rollout_target="127.0.0.1:1", hash_key=SecretStr(secret))
    assert "hash_key" in str(refused.value) and "xyzzy" not in str(refused.value)


def test_a_hash_key_is_not_shown() -> None:
    config = GatewayConfig(model_dir=Path("model"), rollout_target="127.0.0.1:1", hash_key=SecretStr("xyzzy" * 5))
    assert "xyzzy" not in repr(config)


@pytest.mark.parametrize("limit", [0, -1, 10**30])
def test_a_limit_is_a_whole_number_that_redis_can_count_to(limit: int) -> None:
    with pytest.raises(ValidationError, match="requests_per_minute"):
        GatewayConfig(
            model_dir=Path("model"),
            rollout_target="127.0.0.1:1",
            user_limits=LimitsConfig(requests_per_minute=limit),
        )


def test_every_limit_can_be_set() -> None:
    assert list(LimitsConfig.model_fields) == [field.name for field in fields(Limits)]
    assert LimitsConfig(requests_per_minute=7).limits() == Limits(requests_per_minute=7)
