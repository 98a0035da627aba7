from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from onlinerlhf.core.errors import ConfigError, StartupError
from onlinerlhf.learner.build import build_ppo
from onlinerlhf.learner.checkpoint import CheckpointStore, Progress
from onlinerlhf.learner.lora import add_adapters
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.ppo_state import exported, gather, restore, scalars
from onlinerlhf.learner.recipe_config import RecipeConfig
from onlinerlhf.learner.tensors import copy_into, unique_tensors
from onlinerlhf.models.packed import pack, packed_logits
from onlinerlhf.models.policy import load_policy, save_model
from unit.learner.tiny import random_rollouts, tiny_config, tiny_policy

TOKENS = [[5, 6, 7, 8, 9], [10, 11, 12]]


def _config(directory: Path, **settings: object) -> RecipeConfig:
    """Steps large enough for three of them to be seen."""
    return RecipeConfig.model_validate(
        {
            "policy_dir": directory / "policy",
            "reward_dir": directory / "reward",
            "lora_rank": 4,
            "lora_alpha": 8,
            "num_minibatches": 2,
            "learning_rate": 1e-2,
            "warmup_steps": 0,
            "ema_decay": 0.5,
            **settings,
        }
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A policy and a reward model to start from."""
    tiny_policy().save_pretrained(tmp_path / "policy")
    torch.manual_seed(1)
    AutoModelForSequenceClassification.from_config(tiny_config()).save_pretrained(tmp_path / "reward")
    return tmp_path


def _logits(model: PreTrainedModel) -> torch.Tensor:
    packed = pack(TOKENS)
    with torch.no_grad():
        return packed_logits(model, packed, torch.arange(8))


def _trained(directory: Path, **settings: object) -> PPO:
    ppo = build_ppo(_config(directory, **settings))
    for seed in range(3):
        ppo.step(random_rollouts(8, seed=seed))
    return ppo


def test_training_starts_from_the_policy_itself_and_moves_adapters_alone(directory: Path) -> None:
    ppo = build_ppo(_config(directory))
    before = {name: parameter.clone() for name, parameter in ppo.policy.named_parameters()}
    assert torch.equal(_logits(ppo.policy), _logits(ppo.reference))
    ppo.step(random_rollouts(8))
    moved = {name for name, parameter in ppo.policy.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == set(ppo.policy_optimizer.names)
    # Two layers, seven linear layers each, two matrices.
    assert len(moved) == 28 and all("lora_" in name for name in moved)


def test_what_is_exported_is_a_plain_model_that_computes_the_same(directory: Path) -> None:
    ppo = _trained(directory)
    weights = {name: tensor.clone() for name, tensor in ppo.policy.state_dict().items()}
    copy = load_policy(directory / "policy")
    copy_into(unique_tensors(copy), exported(ppo))
    save_model(copy, directory / "policy", directory / "out")
    plain = AutoModelForCausalLM.from_pretrained(directory / "out")
    expected = _logits(ppo.policy)
    found = plain(input_ids=torch.tensor([TOKENS[0]])).logits[0]
    torch.testing.assert_close(found, expected[:5], atol=1e-4, rtol=1e-4)
    assert (expected - _logits(ppo.reference)).abs().max() > 0.1
    # The live weights are as they were.
    assert all(torch.equal(tensor, weights[name]) for name, tensor in ppo.policy.state_dict().items())


def test_the_average_of_the_adapters_is_exported_merged_too(directory: Path) -> None:
    ppo = _trained(directory)
    assert ppo.ema is not None
    averaged, kept = exported(ppo, averaged=True), list[torch.Tensor]()
    with torch.no_grad():
        for parameter, shadow in zip(ppo.ema.parameters, ppo.ema.shadow, strict=True):
            kept.append(parameter.clone())
            parameter.copy_(shadow)
        expected = exported(ppo)
        for parameter, before in zip(ppo.ema.parameters, kept, strict=True):
            parameter.copy_(before)
    assert averaged.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in averaged.items())
    assert not torch.equal(
        averaged["model.layers.0.mlp.up_proj.weight"], exported(ppo)["model.layers.0.mlp.up_proj.weight"]
    )


def test_a_checkpoint_holds_the_adapters_alone_and_goes_on_exactly(directory: Path) -> None:
    store, original = CheckpointStore(directory / "checkpoints"), _trained(directory)
    store.save(original, Progress(step=3, version=4))
    assert set(gather(original)["policy"]) == set(original.policy_optimizer.names)
    resumed = build_ppo(_config(directory))
    assert store.load(resumed) is not None
    rollouts = random_rollouts(6, seed=9)
    assert original.step(rollouts) == resumed.step(rollouts)
    expected = exported(original)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in exported(resumed).items())


def test_adapters_on_another_base_are_refused(directory: Path) -> None:
    store = CheckpointStore(directory / "checkpoints")
    store.save(_trained(directory), Progress(step=3, version=4))
    tiny_policy(seed=5).save_pretrained(directory / "policy")
    with pytest.raises(
        StartupError, match=r"was made with adapters of \w+ with lora_alpha 8; configured are adapters of"
    ):
        store.load(build_ppo(_config(directory)))
    with pytest.raises(StartupError, match="configured are whole weights"):
        store.load(build_ppo(_config(directory, lora_rank=0)))


def test_adapters_of_another_strength_or_rank_are_refused(directory: Path) -> None:
    original = build_ppo(_config(directory))
    parts, numbers = gather(original), scalars(original)
    with pytest.raises(ValueError, match="lora_alpha 9"):
        restore(build_ppo(_config(directory, lora_alpha=9)), parts, numbers)
    with pytest.raises(ValueError, match="has shape"):
        restore(build_ppo(_config(directory, lora_rank=2)), parts, numbers)


def test_adapters_start_alike_each_time_and_leave_the_random_state_alone(directory: Path) -> None:
    first, second = tiny_policy(), tiny_policy()
    add_adapters(first, _config(directory))
    torch.manual_seed(77)
    state = torch.get_rng_state()
    add_adapters(second, _config(directory))
    assert torch.equal(torch.get_rng_state(), state)
    again = second.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.state_dict().items())


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["c_attn"], r"has no layer c_attn; its linear layers are down_proj, gate_proj, k_proj, lm_head"),
        ([], "has no layer without a name; its linear layers are"),
        (["embed_tokens"], "embed_tokens is no linear layer"),
    ],
)
def test_targets_that_cannot_have_adapters_are_refused(directory: Path, targets: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        add_adapters(tiny_policy(), _config(directory, lora_targets=targets))


def test_a_tied_output_layer_cannot_have_an_adapter(directory: Path) -> None:
    with pytest.raises(ConfigError, match="the weights of lm_head are another layer's too"):
        add_adapters(tiny_policy(), _config(directory, lora_targets=["lm_head"]))
    add_adapters(tiny_policy(tie_word_embeddings=False), _config(directory, lora_targets=["lm_head"]))
