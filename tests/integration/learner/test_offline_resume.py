"""SIGKILL of `onlinerlhf train ppo` at moments nobody chose: the result is bit for bit that of a run left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from integration.learner.conftest import PROCESS_ENVIRONMENT, Lives
from onlinerlhf.learner.bootstrap import tiny_models

NUM_STEPS = 12


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models and data."""
    tmp_path = tmp_path_factory.mktemp("places")
    tiny_models(tmp_path, tie_word_embeddings=False)
    for name, field in (("prompts", "prompt"), ("texts", "text")):
        rows = (json.dumps({field: f"name {number} things that float"}) + "\n" for number in range(20))
        (tmp_path / f"{name}.jsonl").write_text("".join(rows))
    return {
        "policy_dir": tmp_path / "sft",
        "reward_dir": tmp_path / "reward",
        "prompts": tmp_path / "prompts.jsonl",
        "ptx_data": tmp_path / "texts.jsonl",
    }


SETTINGS: dict[str, Any] = {
    "deterministic": True,
    "num_threads": 1,
    "max_steps": NUM_STEPS,
    "epochs": 100,
    "batch_size": 16,
    "num_responses": 2,
    "num_minibatches": 2,
    "max_response_tokens": 8,
    "learning_rate": 1e-3,
    "value_learning_rate": 1e-3,
    "kl_target_per_sequence_nats": 1.0,
    "ptx_examples_per_rollout": 1,
    "checkpoint_every": 5,
}


def message(places: dict[str, Path], out: Path) -> dict[str, Any]:
    """What starts a training."""
    config = {**SETTINGS, **{name: str(path) for name, path in places.items()}, "output_dir": str(out)}
    return {"config": {**config, "prompts": [config["prompts"]]}, "digests": str(digests_of(out))}


def digests_of(out: Path) -> Path:
    return out.with_name(out.name + "-digests")


def digests(out: Path) -> list[tuple[str, str]]:
    """Step and state after it, as each life came by."""
    path = digests_of(out)
    lines = path.read_text().splitlines() if path.exists() else []
    return [(step, digest) for step, digest in (line.split() for line in lines if line.count(" ") == 1)]


def wait_for(condition: Callable[[], bool], what: str, *, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def alone(trainings: Lives, places: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a training was left alone until its end."""
    out = tmp_path_factory.mktemp("alone") / "out"
    trainings.start(message(places, out))
    wait_for((out / "report.json").exists, "the training that is left alone")
    return out


@pytest.mark.timeout(300)
def test_a_training_killed_again_and_again_ends_bit_identical_to_one_left_alone(
    trainings: Lives, places: dict[str, Path], alone: Path, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    moments = random.Random(7)
    for seen in (1, 4, 6, 9, NUM_STEPS):
        pid = trainings.start(message(places, killed))
        wait_for(lambda seen=seen: any(int(step) >= seen for step, _ in digests(killed)), f"step {seen}")  # type: ignore[misc]
        # Anywhere in the steps that follow: sampling, learning, saving, in the end writing the model.
        time.sleep(moments.uniform(0, 0.3))
        os.kill(pid, signal.SIGKILL)
    trainings.start(message(places, killed))
    wait_for((killed / "report.json").exists, "the training after its last kill")
    # Weights, moments, average, value network, KL coefficient, random state and the mix's position, after every step.
    expected = dict(digests(alone))
    assert [int(step) for step in expected] == list(range(1, NUM_STEPS + 1))
    assert set(digests(killed)) == set(expected.items())
    assert len(digests(killed)) > NUM_STEPS, "no step was done again: no kill came between two checkpoints"
    assert_same_models(alone, killed)
    assert [step["step"] for step in steps(killed)] == list(range(1, NUM_STEPS + 1))
    assert learned(killed) == learned(alone)


@pytest.mark.timeout(300)
def test_the_command_itself_goes_on_after_a_kill(places: dict[str, Path], alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "command"
    options = [f"--set={name}={str(value).lower()}" for name, value in SETTINGS.items()]
    named = {"policy": "policy_dir", "reward": "reward_dir", "prompts": "prompts", "ptx-data": "ptx_data"}
    options += [f"--{option}={places[name]}" for option, name in named.items()]
    command = [sys.executable, "-m", "onlinerlhf", "train", "ppo", f"--out={out}", *options]
    with subprocess.Popen(command, env=PROCESS_ENVIRONMENT, stderr=subprocess.DEVNULL) as first:
        wait_for((out / "checkpoints" / "step-00000005").exists, "the first checkpoint")
        first.kill()
    assert not (out / "report.json").exists()
    second = subprocess.run(command, env=PROCESS_ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert second.returncode == 0, second.stderr
    assert "goes on from" in second.stderr
    assert_same_models(alone, out)


def assert_same_models(one: Path, other: Path) -> None:
    for part in (".", "ema"):
        ours, theirs = (load_file(out / part / "model.safetensors") for out in (one, other))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def steps(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]


def learned(out: Path) -> list[dict[str, float]]:
    """All but the clock's numbers."""
    return [{name: number for name, number in step.items() if not name.endswith("_seconds")} for step in steps(out)]
