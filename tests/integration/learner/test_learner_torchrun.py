"""The learner's service under torchrun: rank 0 leads and talks to Redis, the other follows."""

import asyncio
import contextlib
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import torch
from redis.asyncio import Redis
from safetensors.torch import load_file

from integration.learner.conftest import learner_environment, tiny_directories, trained
from integration.learner.learning import Source
from integration.learner.test_two_ranks import rank_environment, torchrun
from onlinerlhf.core.samples import Stage
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.streams import Streams
from unit.learner.tiny import tiny_policy

pytestmark = pytest.mark.timeout(240)
BATCH = 4


@pytest.fixture
def environment(tmp_path: Path, run_config: RunConfig) -> dict[str, str]:
    """Settings of two ranks over tiny models."""
    settings = {
        **tiny_directories(tmp_path),
        "batch_size": BATCH,
        "num_minibatches": 2,
        "learning_rate": 1e-3,
        "max_staleness": 1000,
        "num_threads": 1,
        "keep_checkpoints": 1000,
        "collective_timeout_seconds": 60,
    }
    return {**rank_environment(), **learner_environment(run_config, run_config.id, settings)}


class Group:
    """A launcher and its ranks."""

    def __init__(self, launcher: asyncio.subprocess.Process, log: Path) -> None:
        self._launcher = launcher
        self._log = log

    def ranks(self) -> list[psutil.Process]:
        """The processes that run now, rank 0 first."""
        children = psutil.Process(self._launcher.pid).children()
        return sorted(children, key=lambda process: process.environ()["RANK"])

    def drain(self) -> None:
        """As Kubernetes does."""
        self._launcher.send_signal(signal.SIGTERM)

    async def ended(self, *, seconds: float) -> int:
        """Its exit status. Every rank is gone by then."""
        ranks = self.ranks()
        async with asyncio.timeout(seconds):
            status = await self._launcher.wait()
        assert not any(rank.is_running() for rank in ranks), self.log()[-4000:]
        return status

    def log(self) -> str:
        """What all of them wrote."""
        return self._log.read_text()


@contextlib.asynccontextmanager
async def _running(environment: dict[str, str], directory: Path, *options: str) -> AsyncIterator[Group]:
    log = directory / "torchrun.log"
    command = torchrun(2, *options, "-m", "onlinerlhf.learner")
    with log.open("wb") as stream:
        launcher = await asyncio.create_subprocess_exec(*command, env=environment, stdout=stream, stderr=stream)
    group = Group(launcher, log)
    try:
        yield group
    finally:
        if launcher.returncode is None:
            for process in [*group.ranks(), psutil.Process(launcher.pid)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            await launcher.wait()


def _contained(output_dir: Path) -> Counter[str]:
    """The samples that checkpoints list, and how often."""
    states = [json.loads(path.read_text()) for path in sorted((output_dir / "checkpoints").glob("step-*/state.json"))]
    return Counter(sample["sample_id"] for state in states for sample in state["samples"])


async def test_two_ranks_take_batches_publish_ack_and_drain(
    client: Redis, keys: RunKeys, ledger: Ledger, streams: Streams, environment: dict[str, str], tmp_path: Path
) -> None:
    ids = [f"p{number}.0" for number in range(2 * BATCH)]
    await Source(client, keys).put_scored(ids)
    async with _running(environment, tmp_path) as group:
        await trained(ledger, len(ids))
        # Too few for a batch, and nothing else to do: the follower waits, and hears of the drain.
        await Source(client, keys).put_scored(["q0.0", "q1.0"])
        await asyncio.sleep(1)
        group.drain()
        await group.ended(seconds=40)
        log = group.log()
    assert [line["event"] for line in _lines(log, "learner")][-1] == "stopped"
    assert "StartupError" not in log and "Connection closed" not in log
    assert _contained(tmp_path / "out") == Counter(ids)
    counts = await ledger.counts()
    assert (counts.trained, counts.imbalance) == (len(ids), 0)
    assert counts.pending[Stage.SCORED] == 2
    assert not any(info.name == "learner" for info in await streams.consumers(Stage.SCORED))
    _check_versions(tmp_path / "out", step=2, version=3)


def _lines(log: str, room: str) -> list[dict[str, str]]:
    found = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line for line in found if line["room"] == room]


def _check_versions(output_dir: Path, *, step: int, version: int) -> None:
    """What workers are offered is what the checkpoint of that step has, which rank 0 wrote."""
    checkpoint = output_dir / "checkpoints" / f"step-{step:08d}"
    for part, directory in (("policy", "versions"), ("ema", "versions-ema")):
        offered = load_file(output_dir / directory / f"version-{version:08d}.safetensors")
        saved = load_file(checkpoint / f"{part}.safetensors")
        assert offered.keys() == saved.keys()
        assert all(torch.equal(tensor, saved[name]) for name, tensor in offered.items())
    first = load_file(output_dir / "versions" / "version-00000001.safetensors")
    start = tiny_policy().state_dict()
    assert all(torch.equal(tensor, start[name]) for name, tensor in first.items())


@pytest.mark.parametrize("rank", [0, 1])
async def test_a_group_that_loses_a_rank_starts_again_and_trains_every_sample_once(
    client: Redis, keys: RunKeys, ledger: Ledger, environment: dict[str, str], tmp_path: Path, rank: int
) -> None:
    source = Source(client, keys)
    ids = [f"p{number}.0" for number in range(5 * BATCH)]
    await source.put_scored(ids[: 2 * BATCH])
    environment["ONLINERLHF_LEARNER__LEASE_SECONDS"] = "3"
    async with _running(environment, tmp_path, "--max-restarts", "1") as group:
        await trained(ledger, 2 * BATCH)
        before = {process.pid for process in group.ranks()}
        await source.put_scored(ids[2 * BATCH :])
        group.ranks()[rank].kill()
        await trained(ledger, len(ids), seconds=120)
        assert not before & {process.pid for process in group.ranks()}
        group.drain()
        await group.ended(seconds=40)
    assert _contained(tmp_path / "out") == Counter(ids)
    assert (await ledger.counts()).imbalance == 0
