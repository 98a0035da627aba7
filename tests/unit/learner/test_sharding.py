import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.distributed.tensor import DTensor
from transformers import AutoModelForSequenceClassification

from onlinerlhf.algorithms.batching import pack_rows
from onlinerlhf.core.errors import ConfigError, NonFiniteLoss, StartupError
from onlinerlhf.learner.build import build_ppo
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.ppo_state import exported, gather, restore, scalars
from onlinerlhf.learner.ranks import Ranks
from onlinerlhf.learner.recipe_config import RecipeConfig
from onlinerlhf.learner.sharding import alone, shard
from onlinerlhf.learner.tasks import Gather
from unit.learner.tiny import random_rollouts, tiny_config, tiny_policy, tiny_ppo


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A policy and a reward model to start from."""
    tiny_policy().save_pretrained(tmp_path / "policy")
    torch.manual_seed(1)
    AutoModelForSequenceClassification.from_config(tiny_config()).save_pretrained(tmp_path / "reward")
    return tmp_path


@pytest.fixture
def group() -> Iterator[None]:
    """Leaves no process group behind."""
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _config(directory: Path, **settings: object) -> RecipeConfig:
    return RecipeConfig.model_validate(
        {
            "policy_dir": directory / "policy",
            "reward_dir": directory / "reward",
            "num_minibatches": 2,
            "learning_rate": 1e-3,
            "value_learning_rate": 1e-3,
            "warmup_steps": 0,
            **settings,
        }
    )


def _weights(ppo: PPO) -> dict[str, torch.Tensor]:
    return {f"{part}.{name}": tensor.clone() for part, found in gather(ppo).items() for name, tensor in found.items()}


def test_one_two_and_four_accumulation_steps_agree_within_1e_5() -> None:
    rollouts = random_rollouts(16)
    lengths = [len(rollout.prompt_ids) + len(rollout.response_ids) for rollout in rollouts]
    limits = {1: 1000, 2: 160, 4: 80}
    assert {count: len(pack_rows(lengths, max_tokens=limit)) for count, limit in limits.items()} == {1: 1, 2: 2, 4: 4}
    found = []
    for limit in limits.values():
        ppo = tiny_ppo(micro_batch_tokens=limit, num_minibatches=1, warmup_steps=0)
        start = _weights(ppo)
        metrics = [dataclasses.asdict(ppo.step(rollouts)) for _ in range(3)]
        moved = max((tensor - start[name]).abs().max() for name, tensor in _weights(ppo).items() if name in start)
        assert moved > 2e-3
        found.append((metrics, _weights(ppo)))
    (metrics, weights), *others = found
    for other_metrics, other_weights in others:
        for one, other in zip(metrics, other_metrics, strict=True):
            for name, number in other.items():
                assert one[name] == (None if number is None else pytest.approx(number, abs=1e-5, rel=1e-5)), name
        for name, tensor in other_weights.items():
            torch.testing.assert_close(tensor, weights[name], rtol=0, atol=1e-5, msg=name)


def test_activation_checkpointing_changes_nothing_but_the_memory(directory: Path) -> None:
    plain, frugal = build_ppo(_config(directory)), build_ppo(_config(directory, activation_checkpointing=True))
    assert not frugal.policy.training
    for seed in range(2):
        assert plain.step(random_rollouts(8, seed=seed)) == frugal.step(random_rollouts(8, seed=seed))
    expected = _weights(plain)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in _weights(frugal).items())


def test_activation_checkpointing_keeps_the_inputs_of_layers_only(directory: Path) -> None:
    def num_saved_bytes(ppo: PPO) -> int:
        sizes: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = ppo.policy(input_ids=torch.arange(3, 53)[None]).logits.sum()
        loss.backward()
        return sum(sizes.values())

    plain, frugal = (build_ppo(_config(directory, activation_checkpointing=on)) for on in (False, True))
    assert num_saved_bytes(frugal) < 0.5 * num_saved_bytes(plain)


@pytest.mark.usefixtures("group")
def test_bfloat16_passes_learn_what_float32_ones_do_and_the_weights_stay_float32(directory: Path) -> None:
    exact, rounded = build_ppo(_config(directory)), build_ppo(_config(directory, compute_dtype="bfloat16"))
    start = {name: tensor.clone() for name, tensor in exported(exact).items()}
    for seed in range(3):
        expected, found = exact.step(random_rollouts(24, seed=seed)), rounded.step(random_rollouts(24, seed=seed))
    assert {tensor.dtype for tensor in _weights(rounded).values()} == {torch.float32}
    assert all(isinstance(parameter, DTensor) for parameter in rounded.policy.parameters())
    assert found.policy_grad_norm == pytest.approx(expected.policy_grad_norm, rel=0.1)
    assert found.value_loss == pytest.approx(expected.value_loss, rel=0.1)
    assert found.kl_per_sequence_nats == pytest.approx(expected.kl_per_sequence_nats, abs=0.1)
    end, near = exported(exact), exported(rounded)
    moved = torch.cat([(end[name] - start[name]).flatten() for name in start])
    near_moved = torch.cat([(near[name] - start[name]).flatten() for name in start])
    assert torch.cosine_similarity(moved, near_moved, dim=0) > 0.9


@pytest.mark.usefixtures("group")
def test_a_bfloat16_learner_resumes_exactly_and_takes_a_float32_learner_s_state(directory: Path) -> None:
    config = _config(directory, compute_dtype="bfloat16")
    original = build_ppo(config)
    original.step(random_rollouts(8))
    resumed = build_ppo(config)
    restore(resumed, gather(original), scalars(original))
    assert original.step(random_rollouts(8, seed=2)) == resumed.step(random_rollouts(8, seed=2))
    expected = _weights(original)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in _weights(resumed).items())
    restore(build_ppo(_config(directory)), gather(original), scalars(original))


@pytest.mark.usefixtures("group")
def test_a_bfloat16_step_that_is_not_finite_is_undone(directory: Path) -> None:
    ppo = build_ppo(_config(directory, compute_dtype="bfloat16"))
    ppo.step(random_rollouts(8))
    before = _weights(ppo)
    with pytest.raises(NonFiniteLoss):
        ppo.step([dataclasses.replace(rollout, score=float("nan")) for rollout in random_rollouts(8)])
    assert all(torch.equal(tensor, before[name]) for name, tensor in _weights(ppo).items())
    ppo.step(random_rollouts(8, seed=1))


@pytest.mark.usefixtures("group")
def test_a_sharded_pass_that_fails_midway_ends_the_learner_and_a_whole_one_does_not(directory: Path) -> None:
    def no_memory() -> None:
        raise torch.OutOfMemoryError("no memory\nand a long story")

    sharded = alone(_config(directory, compute_dtype="bfloat16"))
    with (
        pytest.raises(StartupError, match="1 failed to gather: OutOfMemoryError: no memory"),
        sharded.together(Gather()),
    ):
        no_memory()
    with pytest.raises(torch.OutOfMemoryError), Ranks().together(Gather()):
        no_memory()
    with pytest.raises(NonFiniteLoss), sharded.together(Gather()):
        raise NonFiniteLoss("decided from sums, so all ranks know")


def test_a_model_that_does_not_name_its_layers_cannot_be_sharded(directory: Path) -> None:
    policy = tiny_policy()
    policy._no_split_modules = None
    with pytest.raises(ConfigError, match="Qwen3ForCausalLM does not say what its layers are"):
        shard(policy, _config(directory, activation_checkpointing=True), Ranks())
    assert shard(policy, _config(directory), Ranks()) is policy
