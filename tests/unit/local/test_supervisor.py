"""Supervision of real, tiny processes."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from onlinerlhf.core.errors import StartupError, WaitTimeout
from onlinerlhf.local.child import ChildSpec, ChildState, RestartPolicy, last_line
from onlinerlhf.local.supervisor import Supervisor, supervised
from onlinerlhf.local.warden import groups_left

FAST = RestartPolicy(first_delay_seconds=0.02, max_delay_seconds=0.1, probe_seconds=0.02)
SLEEP = "import time; time.sleep(60)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
PARENT = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"

SUPERVISE = f"""
import asyncio, os, sys
from pathlib import Path
from onlinerlhf.local.child import ChildSpec
from onlinerlhf.local.supervisor import supervised

async def ready() -> str:
    return ""

async def main() -> None:
    command = (sys.executable, "-S", "-c", {SLEEP!r})
    async with supervised(lambda: [["a"]]) as supervisor:
        supervisor.start(
            ChildSpec(name="a", command=command, environment=os.environ, log_path=Path(sys.argv[1]), probe=ready)
        )
        await supervisor.wait_ready(["a"], timeout_seconds=10)
        print(supervisor.children["a"].pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def _ready() -> str:
    return ""


async def _never() -> str:
    return "its engine"


def spec(
    directory: Path,
    code: str,
    *,
    name: str = "child",
    probe: Callable[[], Awaitable[str]] = _ready,
    drain_seconds: float = 5.0,
) -> ChildSpec:
    return ChildSpec(
        name=name,
        command=(sys.executable, "-S", "-c", code),
        environment=dict(os.environ),
        log_path=directory / f"{name}.log",
        probe=probe,
        drain_seconds=drain_seconds,
    )


async def until(condition: Callable[[], bool], what: str) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"waited 10 s for {what}")


async def ready(supervisor: Supervisor, name: str = "child") -> int:
    await supervisor.wait_ready([name], timeout_seconds=10)
    pid = supervisor.children[name].pid
    assert pid is not None
    return pid


async def test_a_child_that_dies_is_started_again_and_counted(tmp_path: Path) -> None:
    async with supervised(lambda: [["child"]], policy=FAST) as supervisor:
        supervisor.start(spec(tmp_path, SLEEP))
        first = await ready(supervisor)
        os.kill(first, 9)
        await until(lambda: supervisor.children["child"].restarts == 1, "the restart")
        second = await ready(supervisor)
        assert second != first


async def test_nothing_is_left_when_the_block_ends(tmp_path: Path) -> None:
    async with supervised(lambda: [["child"]], policy=FAST) as supervisor:
        supervisor.start(spec(tmp_path, SLEEP))
        pid = await ready(supervisor)
    assert not psutil.pid_exists(pid)
    assert supervisor.children["child"].state is ChildState.STOPPED


async def test_a_child_that_ignores_sigterm_is_killed_after_its_drain_time(tmp_path: Path) -> None:
    async def is_up() -> str:
        return "" if (tmp_path / "child.log").read_text().startswith("up") else "its handler"

    async with supervised(lambda: [["child"]], policy=FAST) as supervisor:
        supervisor.start(spec(tmp_path, DEAF, probe=is_up, drain_seconds=0.3))
        pid = await ready(supervisor)
    assert not psutil.pid_exists(pid)


async def test_what_a_killed_child_had_started_goes_with_it(tmp_path: Path) -> None:
    async def has_grandchild() -> str:
        return "" if (tmp_path / "child.log").read_text().strip() else "its child"

    code = PARENT + "print(p.pid, flush=True); time.sleep(60)"
    async with supervised(lambda: [["child"]], policy=FAST) as supervisor:
        supervisor.start(spec(tmp_path, code, probe=has_grandchild))
        pid = await ready(supervisor)
        grandchild = int((tmp_path / "child.log").read_text().split()[0])
        os.kill(pid, 9)
        await until(lambda: not _runs(grandchild), "the grandchild's end")


def _runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def test_a_child_that_never_starts_ends_the_platform_with_its_last_line(tmp_path: Path) -> None:
    code = "import sys; sys.exit('error: model directory /nowhere has no config.json')"

    async def platform() -> None:
        async with supervised(lambda: [["child"]], policy=FAST) as supervisor:
            supervisor.start(spec(tmp_path, code, probe=_never))
            await supervisor.wait_ready(["child"], timeout_seconds=10)

    with pytest.raises(StartupError) as failed:
        await platform()
    assert str(failed.value) == "child does not start: error: model directory /nowhere has no config.json"
    assert (tmp_path / "child.log").read_text().count("error:") == 2


async def test_a_child_that_is_given_up_takes_the_others_down(tmp_path: Path) -> None:
    pids: list[int] = []

    async def platform() -> None:
        async with supervised(lambda: [["bad"], ["good"]], policy=FAST) as supervisor:
            supervisor.start(spec(tmp_path, SLEEP, name="good"))
            pids.append(await ready(supervisor, "good"))
            supervisor.start(spec(tmp_path, "raise SystemExit(3)", name="bad", probe=_never))
            await asyncio.sleep(10)

    with pytest.raises(StartupError):
        await platform()
    assert not psutil.pid_exists(pids[0])


async def test_a_wait_that_runs_out_names_the_child_and_what_it_waits_for(tmp_path: Path) -> None:
    async with supervised(lambda: [["child"]], policy=FAST) as supervisor:
        supervisor.start(spec(tmp_path, SLEEP, probe=_never))
        await until(lambda: supervisor.children["child"].waiting_for == "its engine", "the probe")
        with pytest.raises(WaitTimeout, match=r"not ready within 0 s: child: its engine"):
            await supervisor.wait_ready(["child"], timeout_seconds=0.2)


async def test_children_are_stopped_in_the_order_asked_for(tmp_path: Path) -> None:
    stopped: list[str] = []

    def note() -> None:
        for name, child in supervisor.children.items():
            if child.state is ChildState.STOPPED and child.pid is None and name not in stopped:
                stopped.append(name)

    async with supervised(lambda: [["b"], ["a"]], policy=FAST, on_change=note) as supervisor:
        for name in ("a", "b"):
            supervisor.start(spec(tmp_path, SLEEP, name=name))
        await supervisor.wait_ready(["a", "b"], timeout_seconds=10)
    assert stopped == ["b", "a"]


async def test_killing_the_supervisor_leaves_nothing_running(tmp_path: Path) -> None:
    script = tmp_path / "supervise.py"
    script.write_text(SUPERVISE)
    parent = await asyncio.create_subprocess_exec(
        sys.executable, str(script), str(tmp_path / "a.log"), stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()
    await until(lambda: not _runs(child), "the child's end")


def test_the_delay_doubles_up_to_the_maximum() -> None:
    policy = RestartPolicy(first_delay_seconds=0.5, max_delay_seconds=10.0)
    assert [policy.delay_seconds(failures) for failures in (1, 2, 3, 6)] == [0.5, 1.0, 2.0, 10.0]


def test_the_warden_ends_only_what_was_not_reported_gone() -> None:
    assert groups_left(["+11", "+12", "-11", "+13"]) == {12, 13}


def test_the_last_line_of_a_json_log_is_its_event(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text('old\n{"level": "error", "event": "port 7 is taken"}\n\n')
    assert last_line(log) == "port 7 is taken"


def test_a_process_that_wrote_nothing_since_its_start_says_so(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("a line of the run before\n")
    assert last_line(log, offset=25) == "it wrote nothing"


def test_a_startup_error_is_found_before_the_lines_that_follow_it(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("onlinerlhf learner: cannot load the models: no such type\nYou may want to upgrade.\n")
    assert last_line(log) == "onlinerlhf learner: cannot load the models: no such type"


async def test_a_room_that_says_why_it_cannot_start_is_not_tried_again(tmp_path: Path) -> None:
    code = "import sys; sys.exit('onlinerlhf reward: [reward] colour: unknown key')"

    async def platform() -> None:
        async with supervised(lambda: [["child"]], policy=FAST) as supervisor:
            supervisor.start(spec(tmp_path, code, probe=_never))
            await supervisor.wait_ready(["child"], timeout_seconds=10)

    with pytest.raises(StartupError, match=r"child does not start: onlinerlhf reward: .* unknown key"):
        await platform()
    assert (tmp_path / "child.log").read_text().count("unknown key") == 1
