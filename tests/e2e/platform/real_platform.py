"""A real platform on tiny models, run as people run it: `onlinerlhf up` in a process of its own."""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from pydantic import SecretStr

from onlinerlhf.gateway.access.callers import KeyClass, Scope
from onlinerlhf.gateway.access.keys import KeyStore
from onlinerlhf.local import credentials
from onlinerlhf.local import endpoints as endpoint_files
from onlinerlhf.local.endpoints import Endpoints, ProcessEntry
from onlinerlhf.local.monitor import Monitor
from onlinerlhf.local.snapshot import Snapshot
from onlinerlhf.runtime import redis
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import LedgerCounts
from onlinerlhf_client import Client, Consent, OnlineRLHFError, Submission, Timeouts

SETTINGS = """
[gateway]
max_context_tokens = 500
max_prompt_tokens = 480
default_max_tokens = 8
prompts_bound = 32
# Every prompt may be trained on, so that each can be followed to its end.
valid_share = 0.0
test_share = 0.0

[rollout]
max_tokens = 8
max_model_len = 512
kv_cache_bytes = 67108864
max_samples_ahead = 48
lease_seconds = 10.0

[reward]
lease_seconds = 10.0

[learner]
batch_size = 16
num_minibatches = 2
learning_rate = 1e-4
max_staleness = 8
lease_seconds = 10.0
num_threads = 1
# A last batch that prompts no longer fill is trained all the same, so that every sample comes to its end.
max_wait_seconds = 2.0
# Every checkpoint is kept: together they list every sample that was trained.
keep_checkpoints = 100000
"""


class Platform:
    """Handle on a running `onlinerlhf up`."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.home = home
        self.run_dir = home / "runs" / "local"
        self.output = home / "up.log"
        (home / "settings.toml").write_text(SETTINGS)
        command = [sys.executable, "-m", "onlinerlhf", "up", "--home", str(home), "--plain"]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--config", str(home / "settings.toml"), *arguments],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Until `up` says so."""
        self.wait(lambda: "ready: gateway" in self.output.read_text(), "the platform to be ready", seconds=200)

    def wait(self, condition: Callable[[], bool], what: str, *, seconds: float = 120) -> None:
        """Poll; an ended platform or the time-out fails with what `up` printed last."""
        deadline = time.monotonic() + seconds
        while not condition():
            tail = self.output.read_text()[-1_000:]
            assert self.process.poll() is None, f"the platform ended while waiting for {what}:\n{tail}"
            assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}:\n{tail}"
            time.sleep(0.25)

    @property
    def endpoints(self) -> Endpoints:
        return endpoint_files.read(self.run_dir)

    def entry(self, name: str) -> ProcessEntry:
        return next(process for process in self.endpoints.processes if process.name == name)

    @property
    def api_key(self) -> str:
        """The playground key that `up` made."""
        return credentials.read(self.run_dir).client_key

    def client(self, api_key: str | None = None) -> Client:
        """With the platform's own key, or another one."""
        return Client(self.endpoints.gateway, api_key=api_key or self.api_key, timeouts=Timeouts(total_seconds=100))

    def make_key(self, *scopes: Scope, key_class: KeyClass = KeyClass.PLAYGROUND) -> str:
        """Another key, known to this platform's Redis."""

        async def make() -> str:
            run = RunConfig(id=self.endpoints.run_id, redis_url=SecretStr(self.endpoints.redis_url))
            async with redis.connect(run) as connection:
                store = KeyStore(connection, RunKeys(run.id))
                _, text = await store.create("test", key_class, "", frozenset(scopes), None)
            return text

        return asyncio.run(make())

    def decisions(self) -> dict[str, str]:
        """Sample id -> what became of it as training data, as the gateway's log has it and no client is told."""
        lines = (self.run_dir / "logs" / "gateway.log").read_text().splitlines()
        records = [json.loads(line) for line in lines if line.startswith("{")]
        decided = [record for record in records if record.get("event") == "decision" and "verdict" in record]
        return {sample_id: record["verdict"] for record in decided for sample_id in record["sample_ids"]}

    def snapshot(self) -> Snapshot:
        async def take() -> Snapshot:
            async with Monitor(lambda: self.endpoints) as monitor:
                return await monitor.snapshot()

        return asyncio.run(take())

    def states(self) -> dict[str, str]:
        """Sample id -> ledger state."""

        async def read() -> dict[str, str]:
            async with Monitor(lambda: self.endpoints) as monitor:
                return await monitor.ledger.states()

        return asyncio.run(read())

    def counts(self) -> tuple[LedgerCounts, LedgerCounts]:
        """The ledger's counters, and what its samples' states add up to."""

        async def read() -> tuple[LedgerCounts, LedgerCounts]:
            async with Monitor(lambda: self.endpoints) as monitor:
                return await monitor.ledger.counts(), await monitor.ledger.audit()

        return asyncio.run(read())

    def checkpointed(self) -> list[tuple[str, int]]:
        """(sample id, policy version) of every sample in any checkpoint; a sample trained twice is there twice."""
        files = sorted((self.run_dir / "learner" / "checkpoints").glob("step-*/state.json"))
        samples = [sample for file in files for sample in json.loads(file.read_text())["samples"]]
        return [(sample["sample_id"], sample["version"]) for sample in samples]

    def kill(self, name: str) -> ProcessEntry:
        """kill -9; the entry as it was before."""
        entry = self.entry(name)
        assert entry.pid is not None
        os.kill(entry.pid, signal.SIGKILL)
        return entry

    def pids(self) -> set[int]:
        """Every process below `up`, and `up`."""
        return {self.process.pid, *(child.pid for child in psutil.Process(self.process.pid).children(recursive=True))}

    def stop(self) -> int:
        """Ctrl-C, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=90)


_LOADS = itertools.count()


@dataclass(kw_only=True)
class Load:
    """Prompts that are submitted in the background; every receipt and refusal is kept."""

    platform: Platform
    num_prompts: int
    receipts: list[str] = field(default_factory=list)
    errors: list[OnlineRLHFError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._submit, name="load")
        self._thread.start()

    def _submit(self) -> None:
        load, consent = next(_LOADS), Consent.shown_now("1")
        prompts = [
            Submission(
                text=f"Load {load} asks question {number}: what is {number} plus one?",
                user_id=f"user-{load}",
                consent=consent,
            )
            for number in range(self.num_prompts)
        ]
        try:
            with self.platform.client() as client:
                for result in client.submit_many(prompts, window=8):
                    self.receipts.append(result.unwrap().sample_id)
        except OnlineRLHFError as error:
            self.errors.append(error)

    def wait_for_receipts(self, count: int) -> None:
        self.platform.wait(lambda: len(self.receipts) >= count or bool(self.errors), f"{count} receipts")

    def finish(self) -> list[str]:
        """Sample ids of all prompts, once all are admitted."""
        self._thread.join(timeout=120)
        assert not self._thread.is_alive(), "prompts are still being submitted"
        assert self.errors == []
        assert len(self.receipts) == len(set(self.receipts)) == self.num_prompts
        return self.receipts


def is_final(state: str | None) -> bool:
    return state is not None and state.startswith(("trained:", "dropped:"))


def check_every_sample(platform: Platform, sample_ids: list[str]) -> None:
    """Wait until all samples came to their end, then check each by its id: trained in one checkpoint, or dropped."""

    def all_final() -> bool:
        states = platform.states()
        return all(is_final(states.get(sample_id)) for sample_id in sample_ids)

    platform.wait(all_final, f"{len(sample_ids)} samples to be trained or dropped", seconds=150)
    states = platform.states()
    counts, audited = platform.counts()
    assert counts == audited
    assert counts.imbalance == 0
    trained = {
        sample_id: int(state.split(":")[1]) for sample_id, state in states.items() if state.startswith("trained")
    }
    checkpointed = platform.checkpointed()
    assert len(checkpointed) == len({sample_id for sample_id, _ in checkpointed}), "a sample was trained twice"
    assert dict(checkpointed) == trained
    assert set(sample_ids) <= set(states)
