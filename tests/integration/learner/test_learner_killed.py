"""SIGKILL of a real learner process, at moments nobody chose."""

import asyncio
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from redis.asyncio import Redis

from integration.learner.conftest import Lives, learner_environment, tiny_directories, trained
from integration.learner.learning import Source
from onlinerlhf.core.samples import Stage
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.streams import Streams

NUM_SAMPLES = 96
BATCH = 4


@pytest.fixture
def environment(tmp_path: Path, run_config: RunConfig) -> dict[str, str]:
    """Settings of a learner process over tiny models."""
    settings = {
        **tiny_directories(tmp_path),
        "batch_size": BATCH,
        "num_minibatches": 2,
        "learning_rate": 1e-3,
        "max_staleness": 1000,
        "keep_checkpoints": 1000,
        "num_threads": 1,
        "lease_seconds": 5,
    }
    return learner_environment(run_config, run_config.id, settings)


@pytest.mark.timeout(180)
async def test_a_learner_killed_again_and_again_trains_every_sample_exactly_once(
    lives: Lives,
    client: Redis,
    keys: RunKeys,
    ledger: Ledger,
    streams: Streams,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    ids = [f"p{number}.0" for number in range(NUM_SAMPLES)]
    await Source(client, keys).put_scored(ids)
    moments = random.Random(20)
    for life in range(8):
        lives.start(environment)
        # In the first steps of this life: anywhere between two of the loop's actions.
        await trained(ledger, (life + 1) * 2 * BATCH)
        await asyncio.sleep(moments.uniform(0, 0.25))
        lives.kill()
    lives.start(environment)
    await trained(ledger, NUM_SAMPLES)
    states = await ledger.states()
    assert {sample for sample, state in states.items() if state.startswith("trained:")} == set(ids)
    counts = await ledger.counts()
    assert (counts.imbalance, counts.trained, sum(counts.dropped.values())) == (0, NUM_SAMPLES, 0)
    assert counts == await ledger.audit()
    assert await streams.backlog(Stage.SCORED) == 0
    _check_lineage(tmp_path / "out", ids)


def _check_lineage(output_dir: Path, ids: list[str]) -> None:
    """The checkpoints' samples are disjoint and complete; steps and versions rise without a repetition."""
    states = [json.loads(path.read_text()) for path in sorted((output_dir / "checkpoints").glob("step-*/state.json"))]
    contained = Counter(sample["sample_id"] for state in states for sample in state["samples"])
    assert contained == Counter(ids)
    assert [state["step"] for state in states] == list(range(NUM_SAMPLES // BATCH + 1))
    steps = [json.loads(line) for line in (output_dir / "steps.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps] == list(range(1, NUM_SAMPLES // BATCH + 1))
    versions = [line["version"] for line in steps]
    assert versions == sorted(set(versions))


@pytest.mark.timeout(120)
async def test_sigterm_finishes_the_step_saves_it_and_hands_the_rest_back(
    lives: Lives,
    client: Redis,
    keys: RunKeys,
    ledger: Ledger,
    streams: Streams,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    ids = [f"p{number}.0" for number in range(NUM_SAMPLES + 1)]
    await Source(client, keys).put_scored(ids)
    lives.start(environment)
    await trained(ledger, 2 * BATCH)
    lives.drain()
    async with asyncio.timeout(30):
        while any(info.name == "learner" for info in await streams.consumers(Stage.SCORED)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    counts = await ledger.counts()
    checkpoints = sorted((tmp_path / "out" / "checkpoints").glob("step-*/state.json"))
    contained = [sample["sample_id"] for path in checkpoints for sample in json.loads(path.read_text())["samples"]]
    assert len(contained) == counts.trained
    assert counts.pending[Stage.SCORED] == NUM_SAMPLES + 1 - counts.trained
    assert counts.imbalance == 0
