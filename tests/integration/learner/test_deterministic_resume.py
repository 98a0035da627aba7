"""SIGKILL of a learner at moments nobody chose: in deterministic mode its weights are what they would have been."""

import asyncio
import json
import random
from pathlib import Path

import pytest
from redis.asyncio import Redis

from integration.learner.conftest import Lives, learner_environment, trained
from integration.learner.learning import Source
from onlinerlhf.learner.bootstrap import tiny_models
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger

NUM_SAMPLES = 80
BATCH = 4
NUM_STEPS = NUM_SAMPLES // BATCH
NUM_KILLS = 6
PARTS = ("policy", "policy_optimizer", "value", "value_optimizer", "ema")


def _environment(home: Path, run: str, run_config: RunConfig) -> dict[str, str]:
    """PPO-ptx with value network, average and adaptive KL: all that a checkpoint must hold."""
    settings = {
        "policy_dir": home / "sft",
        "reward_dir": home / "reward",
        "ptx_data": home / "texts.jsonl",
        "output_dir": home / run,
        "deterministic": True,
        "num_threads": 1,
        "batch_size": BATCH,
        "num_minibatches": 2,
        "ptx_examples_per_rollout": 1,
        "kl_target_per_sequence_nats": 1.0,
        "learning_rate": 1e-3,
        "value_learning_rate": 1e-3,
        # A killed learner's version numbers are not used again, so its samples grow older in versions.
        "max_staleness": 1000,
        # Samples of one or two steps that no checkpoint contains are delivered again, too.
        "checkpoint_every": 3,
        "keep_checkpoints": 1000,
        "lease_seconds": 5,
    }
    return learner_environment(run_config, f"{run_config.id}-{run}", settings)


@pytest.mark.timeout(240)
async def test_weights_after_kills_are_bit_identical_to_those_of_an_uninterrupted_run(
    lives: Lives, client: Redis, run_config: RunConfig, tmp_path: Path
) -> None:
    tiny_models(tmp_path, tie_word_embeddings=False)
    rows = (json.dumps({"text": f"name {number} things that float"}) + "\n" for number in range(20))
    (tmp_path / "texts.jsonl").write_text("".join(rows))
    ids = [f"p{number}.0" for number in range(NUM_SAMPLES)]
    ledgers = {}
    for run in ("straight", "killed"):
        keys = RunKeys(f"{run_config.id}-{run}")
        await Source(client, keys).put_scored(ids)
        ledgers[run] = Ledger(client, keys)

    lives.start(_environment(tmp_path, "straight", run_config))
    await trained(ledgers["straight"], NUM_SAMPLES)

    environment = _environment(tmp_path, "killed", run_config)
    moments = random.Random(7)
    for kill in range(NUM_KILLS):
        lives.start(environment)
        await trained(ledgers["killed"], (kill + 1) * 3 * BATCH)
        await asyncio.sleep(moments.uniform(0, 0.4))
        # A drain gives samples back; it has no more time than it takes to start the next learner.
        lives.drain() if kill == NUM_KILLS // 2 else lives.kill()
    lives.start(environment)
    await trained(ledgers["killed"], NUM_SAMPLES)

    straight, killed = (_checkpoints(tmp_path / run) for run in ("straight", "killed"))
    compared = straight.keys() & killed.keys()
    assert f"step-{NUM_STEPS:08d}" in compared
    assert len(compared) > NUM_KILLS
    for step in sorted(compared):
        assert straight[step] == killed[step], f"{step} differs"
    versions = [json.loads(line)["version"] for line in (tmp_path / "killed" / "steps.jsonl").read_text().splitlines()]
    assert versions[-1] > NUM_STEPS + 1, "no step was done twice: the kills came too late to show anything"


def _checkpoints(output_dir: Path) -> dict[str, dict[str, bytes | object]]:
    """Every file of tensors, and what else a PPO consists of, by step."""
    found: dict[str, dict[str, bytes | object]] = {}
    for directory in (output_dir / "checkpoints").glob("step-*"):
        tensors: dict[str, bytes | object] = {path.name: path.read_bytes() for path in directory.glob("*.safetensors")}
        assert tensors.keys() == {f"{name}.safetensors" for name in PARTS} or directory.name == "step-00000000"
        found[directory.name] = tensors | {"ppo": json.loads((directory / "state.json").read_text())["ppo"]}
    return found
