"""`onlinerlhf train ppo` on tiny models: it learns, and leaves models and a report."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.ppo_state import exported
from onlinerlhf.learner.training.ppo import train_ppo
from onlinerlhf.learner.training.ppo_train_config import PPOTrainConfig
from onlinerlhf.models.packed import pack, packed_token_logprobs
from onlinerlhf.models.policy import load_policy
from onlinerlhf.models.tokenizer import PromptTokenizer
from unit.training.offline_ppo import make_config, make_models, stop_at

TEXTS = ["the lemon is yellow and sour .", "a river runs to the sea .", "bread is made of flour and water ."] * 4
Config = Callable[..., PPOTrainConfig]


@pytest.fixture(scope="module")
def random_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a reward model that likes one token."""
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def config(random_models: Path, tmp_path: Path) -> Config:
    """Of a small training in tmp_path / "out"."""
    return partial(make_config, random_models, tmp_path)


@pytest.mark.parametrize(("estimator", "num_responses"), [("gae", 1), ("rloo", 4), ("grpo", 4)])
def test_the_reward_rises(config: Config, estimator: str, num_responses: int) -> None:
    trained = train_ppo(
        config(
            advantage_estimator=estimator, num_responses=num_responses, max_steps=30, batch_size=64, kl_coef=0.0,
            max_response_tokens=1, checkpoint_every=100,
        )
    )  # fmt: skip
    scores = [numbers["score_mean"] for numbers in trained.history]
    assert sum(scores[:3]) / 3 < 0.1
    assert sum(scores[-3:]) / 3 > 0.5
    assert ("value_loss" in trained.history[0]) == (estimator == "gae")


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_the_result_loads_as_plain_transformers_directories_equal_to_policy_and_average(
    config: Config, lora_rank: int
) -> None:
    seen: dict[bool, dict[str, torch.Tensor]] = {}

    def on_step(ppo: PPO, numbers: Mapping[str, float]) -> None:
        for averaged in (False, True):
            tensors = exported(ppo, averaged=averaged)
            seen[averaged] = {name: tensor.clone() for name, tensor in tensors.items()}

    out = train_ppo(config(ema_decay=0.5, lora_rank=lora_rank), on_step=on_step).out
    for path, expected in ((out, seen[False]), (out / "ema", seen[True])):
        loaded = AutoModelForCausalLM.from_pretrained(path).state_dict()
        assert loaded.keys() == expected.keys()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())
        assert PromptTokenizer.load(path).encode_prompt("a")
    changed = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(seen[False][changed], seen[True][changed])


def test_what_a_training_leaves(config: Config) -> None:
    trained = train_ppo(config(), on_step=lambda ppo, numbers: {"gold": 2 * numbers["step"]})
    assert [(line["step"], line["gold"]) for line in trained.history] == [(1, 2), (2, 4), (3, 6), (4, 8)]
    report = json.loads((trained.out / "report.json").read_text())
    assert (report["num_steps"], report["num_skipped_steps"], report["prompts"]) == (4, 0, 10)
    assert (trained.num_steps, trained.num_skipped) == (4, 0)
    assert report["last_tenth"]["score_mean"] == trained.history[-1]["score_mean"]
    assert (trained.out / "training.png").stat().st_size > 1000
    assert list((trained.out / "tensorboard").iterdir())
    assert not (trained.out / "checkpoints").exists()


def test_a_complete_training_is_not_repeated(config: Config) -> None:
    first = train_ppo(config())
    assert train_ppo(config(), on_step=stop_at(1)) == first


def test_sampled_responses_need_no_importance_weight(config: Config) -> None:
    for numbers in train_ppo(config(temperature=0.7)).history:
        assert numbers["is_weight_max"] == pytest.approx(1, abs=1e-4)


def test_the_mix_holds_the_language_models_loss_down(config: Config, tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    settings = {"max_steps": 12, "kl_coef": 0.0, "batch_size": 32}
    plain = train_ppo(config(**settings)).out
    mixed = train_ppo(config(**settings, ptx_data=tmp_path / "texts.jsonl", output_dir=tmp_path / "mixed"))
    assert nll(mixed.out) < nll(plain) - 0.3
    assert mixed.history[-1]["ptx_nll"] < mixed.history[0]["ptx_nll"] - 0.3


def nll(model_dir: Path) -> float:
    """Nats a token of TEXTS."""
    tokenizer = PromptTokenizer.load(model_dir)
    packed = pack([tokenizer.encode_text(text) for text in TEXTS[:3]])
    with torch.no_grad():
        return -float(packed_token_logprobs(load_policy(model_dir), packed, packed.position_ids[0] > 0).mean())


def test_a_step_that_moves_the_policy_too_far_is_cut_short_and_says_so(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    trained = train_ppo(config(max_steps=1, max_update_kl_nats=1e-9, num_minibatches=4))
    assert trained.history[0]["num_updates"] < 4
    assert "cut short after" in caplog.text and "lower learning_rate" in caplog.text


def test_adaptive_kl_moves_the_coefficient_towards_its_target(config: Config, tmp_path: Path) -> None:
    target = 1e-3
    trained = train_ppo(config(kl_target_per_sequence_nats=target, output_dir=tmp_path / "adaptive", max_steps=8))
    steps = trained.history
    rises = [after["kl_coef"] > before["kl_coef"] for before, after in pairwise(steps)]
    assert rises == [before["kl_per_sequence_nats"] > target for before in steps[:-1]]
    assert len({step["kl_coef"] for step in steps}) > 1
