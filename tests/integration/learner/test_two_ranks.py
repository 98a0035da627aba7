"""Two processes that torchrun started, sharded over gloo, against one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed

from integration.learner.rank_program import play
from onlinerlhf.learner.bootstrap.tiny import tiny_models

pytestmark = pytest.mark.timeout(300)
# Large enough for three steps to move the weights by far more than what is asked of them.
STEP_SIZES = {"learning_rate": 1e-3, "value_learning_rate": 1e-3, "warmup_steps": 0}


def torchrun(num_ranks: int, *program: str, environment: dict[str, str] | None = None) -> list[str]:
    """The command line of a group on this machine, on loopback and a port of its own."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(num_ranks)]
    return [sys.executable, *launcher, "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", *program]


def rank_environment() -> dict[str, str]:
    """One thread a rank, and gloo on loopback."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process and two ranks made of the same models, texts and rollouts."""
    directory = tmp_path_factory.mktemp("ranks")
    tiny_models(directory, tie_word_embeddings=True)
    texts = [f"This is text number {number} of a few, {'and so on ' * number}" for number in range(12)]
    (directory / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    one, two = _scenarios(directory, "one"), _scenarios(directory, "two")
    for scenario in one:
        if "load" not in scenario:
            play(scenario)
    (directory / "scenarios.json").write_text(json.dumps(two))
    program = str(Path(__file__).with_name("rank_program.py"))
    done = subprocess.run(
        torchrun(2, program, str(directory / "scenarios.json")),
        env=rank_environment(),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for scenario in one:
        if "load" in scenario:
            play(scenario)
    distributed.destroy_process_group()  # Of the bfloat16 scenario.
    return directory


def _scenarios(directory: Path, who: str) -> list[dict[str, Any]]:
    """What `one` and `two` do alike; each resumes from the other's checkpoint."""
    other = {"one": "two", "two": "one"}[who]
    common = {
        **STEP_SIZES,
        "policy_dir": str(directory / "sft"),
        "reward_dir": str(directory / "reward"),
        "ptx_data": str(directory / "texts.jsonl"),
        "ptx_coef": 0.5,
        "ptx_examples_per_rollout": 1,
        "ptx_max_tokens": 40,
        "num_minibatches": 2,
        "micro_batch_tokens": 64,
        "num_threads": 1,
    }
    lora = {"lora_rank": 4, "lora_targets": ["q_proj", "v_proj", "down_proj"]}

    def scenario(name: str, steps: int, *, settings: dict[str, Any] | None = None, **others: Any) -> dict[str, Any]:
        out = str(directory / f"{who}-{name}")
        return {"settings": {**common, **(settings or {})}, "steps": steps, "out": out, **others}

    def checkpoints(whose: str, name: str) -> str:
        return str(directory / f"checkpoints-{whose}-{name}")

    return [
        scenario("three steps", 3),
        scenario("two steps", 2, save=checkpoints(who, "whole")),
        scenario("third step", 1, load=checkpoints(other, "whole")),
        scenario("poisoned", 1, poison=True),
        scenario("checkpointed", 1, settings={"activation_checkpointing": True}),
        scenario("lora", 2, settings=lora, save=checkpoints(who, "lora")),
        scenario("lora resumed", 1, settings=lora, load=checkpoints(other, "lora")),
        scenario("bfloat16", 1, settings={"compute_dtype": "bfloat16"}),
    ]


def _state(directory: Path, who: str, name: str, kind: str = "safetensors") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(directory / f"{who}-{name}.{kind}")
    return found


def _metrics(directory: Path, who: str, name: str) -> list[dict[str, float | None]]:
    found: list[dict[str, float | None]] = json.loads((directory / f"{who}-{name}.json").read_text())
    return found


def _distance(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """The largest difference of two weights."""
    assert first.keys() == second.keys()
    return max((tensor - second[name]).abs().max().item() for name, tensor in first.items())


@pytest.mark.parametrize("name", ["three steps", "poisoned", "checkpointed", "lora", "third step", "lora resumed"])
def test_two_ranks_equal_one_within_1e_4(directory: Path, name: str) -> None:
    """Weights, moments, averages and numbers; with the mix, the value network and its optimizer.

    After a step that was undone, with recomputed activations, with adapters, and from the other's checkpoint too.
    """
    assert _distance(_state(directory, "one", name), _state(directory, "two", name)) < 1e-4
    for kind in ("policy", "ema"):
        assert _distance(_state(directory, "one", name, kind), _state(directory, "two", name, kind)) < 1e-5
    for one, two in zip(_metrics(directory, "one", name), _metrics(directory, "two", name), strict=True):
        for key, number in one.items():
            assert two[key] == (None if number is None else pytest.approx(number, rel=1e-4, abs=1e-4)), key


def test_the_steps_compared_moved_the_weights_far(directory: Path) -> None:
    start = load_file(directory / "sft" / "model.safetensors")
    assert _distance(_state(directory, "two", "three steps", "policy"), start) > 3e-3
    assert _distance(_state(directory, "two", "lora", "policy"), start) > 1e-3


@pytest.mark.parametrize("who", ["one", "two"])
def test_a_checkpoint_of_any_number_of_ranks_goes_on_with_any_other(directory: Path, who: str) -> None:
    resumed, straight = _state(directory, who, "third step"), _state(directory, "one", "three steps")
    assert _distance(resumed, straight) < 1e-4
    names = {path.name for path in directory.glob(f"checkpoints-{who}-*")}
    assert names == {f"checkpoints-{who}-whole", f"checkpoints-{who}-lora"}


def test_a_policy_with_adapters_is_exported_under_plain_names_by_two_ranks(directory: Path) -> None:
    exported = _state(directory, "two", "lora", "policy")
    assert exported.keys() == load_file(directory / "sft" / "model.safetensors").keys()
    assert all("lora" in name for name in _state(directory, "two", "lora") if name.startswith("policy."))


def test_weights_stay_float32_where_passes_are_bfloat16(directory: Path) -> None:
    state = _state(directory, "two", "bfloat16")
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    (one,), (two,) = _metrics(directory, "one", "bfloat16"), _metrics(directory, "two", "bfloat16")
    for key in ("policy_grad_norm", "value_grad_norm", "value_loss", "ptx_nll"):
        assert two[key] == pytest.approx(one[key], rel=0.01), key
