import os
from pathlib import Path

import pytest

from onlinerlhf.rollout import environment
from onlinerlhf.rollout.config import RolloutConfig


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"HOME": "/home/ada"})


def config(**settings: object) -> RolloutConfig:
    places = {"model_dir": Path("model"), "learner_target": "nowhere", "staging_dir": Path("staging")}
    return RolloutConfig.model_validate({**places, **settings})


def test_eager_engines_need_no_compiler() -> None:
    environment.prepare(config())
    assert os.environ["TORCHDYNAMO_DISABLE"] == "1"


def test_engines_that_capture_graphs_may_compile() -> None:
    environment.prepare(config(enforce_eager=False))
    assert "TORCHDYNAMO_DISABLE" not in os.environ


def test_what_the_operator_set_stays() -> None:
    os.environ["VLLM_HOST_IP"] = "127.0.0.9"
    environment.prepare(config())
    assert (os.environ["VLLM_HOST_IP"], os.environ["HF_HUB_OFFLINE"]) == ("127.0.0.9", "1")
