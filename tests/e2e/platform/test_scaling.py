"""`onlinerlhf scale` against a platform under load: workers go and come, and neither learners nor users notice.

The tests share one platform and run in the order they are written in; the last one stops it.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from e2e.platform.real_platform import Platform, check_every_sample
from e2e.platform.steady_load import SteadyPrompts, SteadyUsers, Witness
from onlinerlhf.core.samples import Stage
from onlinerlhf.local.snapshot import Snapshot
from onlinerlhf.runtime.consumer import RETURNED

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(500)]

MAX_VERSIONS_BEHIND = 2
"""rollout.max_versions_behind, which is left at its default."""


@pytest.fixture(scope="module")
def platform(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Two workers, and places for three. Whatever the tests do to it, nothing of it is left."""
    started = Platform(
        tmp_path_factory.mktemp("scaled"),
        *("--policy", str(models / "sft"), "--reward", str(models / "reward")),
        *("--rollout-workers", "2", "--max-rollout-workers", "3"),
        # Three engines share two cores.
        *("--set", "rollout.cpu_threads_bind=nobind"),
    )
    try:
        started.wait_ready()
        yield started
    finally:
        pids = started.pids() if started.process.poll() is None else set()
        try:
            started.stop()
        finally:
            for process in [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]:
                process.kill()


def scale(platform: Platform, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """As an operator does it, in another terminal."""
    command = [sys.executable, "-m", "onlinerlhf", "scale", "rollout", *arguments, "--home", str(platform.home)]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)


def workers(platform: Platform) -> dict[str, str]:
    """Name -> state."""
    return {worker.name: worker.state for worker in platform.endpoints.workers}


def consumers(snapshot: Snapshot) -> set[str]:
    """Who reads prompts, apart from where given-back ones wait."""
    return {each.name for each in snapshot.stages[Stage.PROMPTS].consumers} - {RETURNED}


def test_scaled_to_1_and_back_to_3_under_load_nothing_is_lost_doubled_or_refused(platform: Platform) -> None:
    with (
        Witness(platform=platform) as witness,
        SteadyUsers(platform=platform) as users,
        SteadyPrompts(platform=platform) as prompts,
    ):
        platform.wait(lambda: len(prompts.receipts) >= 16, "a load")
        down = scale(platform, "1")
        assert (down.returncode, down.stdout.splitlines()[-1]) == (0, "1 rollout worker ready"), down.stderr
        [stayed] = workers(platform)
        assert consumers(platform.snapshot()) == {stayed}
        learned = platform.snapshot().learner
        assert learned is not None
        up = scale(platform, "3")
        assert (up.returncode, up.stdout.splitlines()[-1]) == (0, "3 rollout workers ready"), up.stderr
        assert workers(platform) == dict.fromkeys(("rollout-0", "rollout-1", "rollout-2"), "ready")
        new = {"rollout-0", "rollout-1", "rollout-2"} - {stayed}
        platform.wait(lambda: new <= witness.samples_since_ready.keys(), "samples of the new workers", seconds=30)

    assert users.failures == []
    assert len(users.answers) > 40
    for name in new:
        # Versions only grow: what the learner had when the worker was last seen unready, it had when it was ready.
        samples, known = witness.samples_since_ready[name], witness.learner_at_ready[name]
        assert known >= learned.version
        assert min(samples) >= known - MAX_VERSIONS_BEHIND
    check_every_sample(platform, prompts.receipts)
    snapshot = platform.snapshot()
    assert snapshot.learner is not None
    newest = snapshot.learner.version
    platform.wait(
        lambda: [worker.version for worker in platform.snapshot().rollouts] == [newest] * 3,
        "every worker to serve the newest version",
    )
    assert consumers(platform.snapshot()) == {"rollout-0", "rollout-1", "rollout-2"}


def test_status_says_how_many_workers_there_are_and_should_be(platform: Platform) -> None:
    command = [sys.executable, "-m", "onlinerlhf", "status", "--json", "--home", str(platform.home)]
    record = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
    assert record["workers"] == {"desired": 3, "current": 3, "ready": 3, "draining": 0, "places": 3}


def test_more_workers_than_the_platform_has_places_for_are_refused(platform: Platform) -> None:
    refused = scale(platform, "4")
    message = "Error: 4 rollout workers; expected 0 to 3 (up --max-rollout-workers)\n"
    assert (refused.returncode, refused.stderr) == (1, message)
    assert platform.endpoints.desired_workers == 3


def test_ctrl_c_while_the_engine_of_a_worker_starts_waits_for_no_engine_and_leaves_nothing(platform: Platform) -> None:
    assert scale(platform, "2").returncode == 0
    [place] = {"rollout-0", "rollout-1", "rollout-2"} - workers(platform).keys()
    log = platform.run_dir / "logs" / f"{place}.log"
    size = log.stat().st_size
    assert scale(platform, "3", "--no-wait").returncode == 0
    platform.wait(lambda: b'"listening"' in log.read_bytes()[size:], "the worker's engine to be started", seconds=60)
    time.sleep(1)
    assert workers(platform)[place] == "starting"
    pids = platform.pids()
    assert platform.stop() == 0
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []
    said = log.read_bytes()[size:]
    assert b"the engine's start is given up" in said
    assert b'"stopped"' in said  # by itself, and not killed when its time was up
