from pathlib import Path

import pytest
from pydantic import ValidationError

from onlinerlhf.gateway.config import GatewayConfig


def test_the_defaults_are_those_of_the_recipe() -> None:
    config = GatewayConfig(model_dir=Path("model"), rollout_target="127.0.0.1:1")
    assert (config.max_prompt_bytes, config.max_prompt_tokens, config.prompts_per_user) == (32_768, 1_000, 200)
    assert config.listen.startswith("127.0.0.1:")


def test_a_default_answer_longer_than_the_longest_is_a_mistake() -> None:
    with pytest.raises(ValidationError, match=r"default_max_tokens \(256\) exceeds max_response_tokens \(100\)"):
        GatewayConfig(model_dir=Path("model"), rollout_target="127.0.0.1:1", max_response_tokens=100)


def test_an_answer_is_never_held_up_for_more_than_a_second() -> None:
    with pytest.raises(ValidationError):
        GatewayConfig(model_dir=Path("model"), rollout_target="127.0.0.1:1", admit_wait_when_answering_seconds=1.5)
