"""From the wish to the workers: what is started, what is drained, and what the command waits for."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import pytest
from click.testing import CliRunner

from onlinerlhf.cli import cli
from onlinerlhf.core.errors import ConfigError, NotFound, StartupError, Unavailable, WaitTimeout
from onlinerlhf.local import desired, ports, scaling
from onlinerlhf.local.child import ChildSpec, ChildState, RestartPolicy
from onlinerlhf.local.desired import Wish
from onlinerlhf.local.endpoints import Endpoints, ProcessEntry
from onlinerlhf.local.platform import PlatformPlan, PlatformSpec, ProcessPlan, plan
from onlinerlhf.local.scale import wait_fulfilled
from onlinerlhf.local.scaling import Changes, Present, WorkerScaler, changes
from onlinerlhf.local.supervisor import Supervisor, supervised

PLACES = ("rollout-0", "rollout-1", "rollout-2", "rollout-3")
SLEEP = "import time; time.sleep(60)"
FAST = RestartPolicy(first_delay_seconds=0.02, max_delay_seconds=0.1, probe_seconds=0.02)


def worker(index: int, state: ChildState = ChildState.READY, *, in_flight: int = 0) -> Present:
    return Present(name=f"rollout-{index}", state=state, num_in_flight=in_flight)


def test_what_is_missing_is_started_in_the_first_free_places() -> None:
    assert changes(3, PLACES, [worker(1)], is_new_wish=True) == Changes(start=("rollout-0", "rollout-2"))


def test_the_worker_with_the_least_in_hand_is_drained_and_of_equals_the_last() -> None:
    present = [worker(0, in_flight=5), worker(1, in_flight=2), worker(2, in_flight=9)]
    assert changes(2, PLACES, present, is_new_wish=True) == Changes(retire=("rollout-1",))
    assert changes(1, PLACES, [worker(0), worker(1)], is_new_wish=True) == Changes(retire=("rollout-1",))


def test_workers_that_do_no_work_yet_go_before_those_that_do() -> None:
    present = [worker(0, ChildState.STARTING), worker(1), worker(2, ChildState.BACKING_OFF), worker(3, in_flight=1)]
    assert changes(2, PLACES, present, is_new_wish=True).retire == ("rollout-2", "rollout-0")
    assert changes(1, PLACES, present, is_new_wish=True).retire == ("rollout-2", "rollout-0", "rollout-1")


def test_a_worker_that_drains_counts_no_more_and_keeps_its_place() -> None:
    present = [worker(0, ChildState.DRAINING), worker(1)]
    assert changes(1, PLACES, present, is_new_wish=True) == Changes()
    assert changes(2, PLACES, present, is_new_wish=True) == Changes(start=("rollout-2",))
    assert changes(4, PLACES, present, is_new_wish=False) == Changes(start=("rollout-2", "rollout-3"))


def test_a_worker_that_was_given_up_is_tried_again_by_a_new_wish_alone() -> None:
    present = [worker(0), worker(1, ChildState.FAILED)]
    assert changes(2, PLACES, present, is_new_wish=False) == Changes()
    assert changes(2, PLACES, present, is_new_wish=True) == Changes(start=("rollout-2",), retire=("rollout-1",))
    assert changes(1, PLACES, present, is_new_wish=True) == Changes(retire=("rollout-1",))


def test_none_at_all_may_be_asked_for() -> None:
    assert changes(0, PLACES, [worker(0), worker(1)], is_new_wish=True).retire == ("rollout-1", "rollout-0")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"rollout_workers": "2", "wish": "a"}', '{"rollout_workers": -1, "wish": "a"}']
)
def test_a_damaged_wish_is_refused_with_its_path(tmp_path: Path, text: str) -> None:
    (tmp_path / "desired.json").write_text(text)
    with pytest.raises(ConfigError, match=r"desired\.json .*`onlinerlhf scale rollout N` writes it anew"):
        desired.read(tmp_path)


def test_the_newest_wish_is_the_one_that_is_read(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        desired.read(tmp_path)
    desired.write(tmp_path, 3)
    newest = desired.write(tmp_path, 3)
    assert desired.read(tmp_path) == newest
    assert [path.name for path in tmp_path.iterdir()] == ["desired.json"]


def test_a_kept_port_goes_to_who_asks_for_it_by_number_and_to_nobody_else() -> None:
    port = next(ports.free_ports())
    with ports.kept([f"127.0.0.1:{port}"]):
        with socket.socket() as client:
            assert client.connect_ex(("127.0.0.1", port)) != 0
        assert port not in set(islice(ports.free_ports(), 500))
        for _ in range(2):  # a worker, and the one that takes its place
            with socket.socket() as server, socket.socket() as client:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                server.bind(("127.0.0.1", port))
                server.listen()
                client.connect(("127.0.0.1", port))


def test_a_port_that_is_taken_cannot_be_kept() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartupError, match=f"cannot keep {address} for a rollout worker"), ports.kept([address]):
            pass


@dataclass
class Bench:
    """A scaler over tiny processes."""

    plan: PlatformPlan
    supervisor: Supervisor
    said: list[str]
    wishes: list[Wish] = field(default_factory=list)

    def wish(self, num_workers: int) -> Wish:
        return desired.write(self.plan.spec.run_dir, num_workers)

    def states(self) -> dict[str, str]:
        return {name: str(child.state) for name, child in sorted(self.supervisor.children.items())}

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def ready(self, *names: str) -> None:
        await self.until(lambda: self.states() == dict.fromkeys(names, "ready"))


@pytest.fixture
def tiny_plan(tmp_path: Path) -> PlatformPlan:
    for name in ("sft", "reward"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(b"")
    (tmp_path / "run").mkdir()
    spec = PlatformSpec(run_dir=tmp_path / "run", policy_dir=tmp_path / "sft", reward_dir=tmp_path / "reward")
    return plan(replace(spec, max_rollout_workers=3))


@pytest.fixture
async def bench(
    tiny_plan: PlatformPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., "Bench"]]:
    """Makes one; `code` is what a worker runs."""
    monkeypatch.setattr(scaling, "LOOK_SECONDS", 0.02)
    said: list[str] = []
    async with supervised(list, policy=FAST, report=said.append) as supervisor:

        def make(code: Callable[[str], str] = lambda name: SLEEP) -> Bench:
            it = Bench(tiny_plan, supervisor, said)

            async def is_ready() -> str:
                return ""

            def child_spec(process: ProcessPlan) -> ChildSpec:
                return ChildSpec(
                    name=process.name,
                    command=(sys.executable, "-S", "-c", code(process.name)),
                    environment=dict(os.environ),
                    log_path=tmp_path / f"{process.name}.log",
                    probe=is_ready if "exit" not in code(process.name) else is_never,
                    is_essential=False,
                )

            scaler = WorkerScaler(
                tiny_plan, supervisor, child_spec=child_spec, on_wish=it.wishes.append, report=it.said.append
            )
            tasks.append(supervisor.beside(scaler.run(), name="scaler"))
            return it

        async def is_never() -> str:
            return "its engine"

        tasks: list[asyncio.Task[None]] = []
        yield make
        for task in tasks:
            task.cancel()


async def test_workers_come_and_go_as_they_are_wished_for(bench: Callable[..., Bench]) -> None:
    it = bench()
    await it.ready("rollout-0")  # rollout_workers of the plan, and no wish yet
    it.wish(3)
    await it.ready("rollout-0", "rollout-1", "rollout-2")
    it.wish(1)
    # These answer nobody, so none has more in hand than another.
    await it.ready("rollout-0")
    it.wish(0)
    await it.until(lambda: it.states() == {})
    last = it.wish(2)
    await it.ready("rollout-0", "rollout-1")
    assert it.wishes[-1] == last


async def test_a_newer_wish_takes_the_place_of_one_in_progress(bench: Callable[..., Bench]) -> None:
    it = bench()
    await it.ready("rollout-0")
    for num_workers in (3, 0, 2, 3, 1, 2):
        it.wish(num_workers)
        await asyncio.sleep(0.03)
    await it.until(lambda: list(it.states().values()) == ["ready", "ready"])
    await asyncio.sleep(0.1)
    assert list(it.states().values()) == ["ready", "ready"]


async def test_a_worker_that_cannot_start_leaves_the_others_alone_until_it_is_wished_for_anew(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    broken = "import sys; sys.exit('onlinerlhf rollout: no memory left')"
    it = bench(lambda name: broken if name == "rollout-1" and not (tmp_path / "mended").exists() else SLEEP)
    await it.ready("rollout-0")
    it.wish(2)
    await it.until(lambda: it.states() == {"rollout-0": "ready", "rollout-1": "failed"})
    assert it.supervisor.children["rollout-1"].waiting_for == "does not start: onlinerlhf rollout: no memory left"
    assert "rollout-1 does not start: onlinerlhf rollout: no memory left; the others go on" in it.said
    await asyncio.sleep(0.1)
    assert it.states() == {"rollout-0": "ready", "rollout-1": "failed"}
    (tmp_path / "mended").touch()
    it.wish(3)
    await it.ready("rollout-0", "rollout-1", "rollout-2")


async def test_a_damaged_wish_changes_nothing_and_is_said_once(bench: Callable[..., Bench]) -> None:
    it = bench()
    await it.ready("rollout-0")
    path = it.plan.spec.run_dir / "desired.json"
    path.write_text('{"rollout_workers": 9, "wish": "by hand"}')
    await asyncio.sleep(0.2)
    assert it.said[1:] == [
        "rollout workers stay as they are: 9 rollout workers; expected 0 to 3 (up --max-rollout-workers)"
    ]
    path.unlink()
    await asyncio.sleep(0.1)
    assert it.states() == {"rollout-0": "ready"}


def entry(name: str, state: str, reason: str = "") -> ProcessEntry:
    return ProcessEntry(name=name, address="127.0.0.1:9", pid=1, restarts=0, state=state, reason=reason)


def found(run_dir: Path, wish: Wish, *workers: ProcessEntry) -> Endpoints:
    endpoints = Endpoints(
        run_id="r",
        run_dir=str(run_dir),
        redis_url="",
        supervisor_pid=os.getpid(),
        http="",
        processes=workers,
        desired_workers=wish.num_workers,
        max_workers=8,
        wish=wish.id,
    )
    endpoints.write()
    return endpoints


async def waited(run_dir: Path, wish: Wish, *, seconds: float = 0.0) -> list[str]:
    shown: list[str] = []
    await wait_fulfilled(run_dir, wish, timeout_seconds=seconds, show=shown.append)
    return shown


async def test_a_wish_is_fulfilled_when_exactly_so_many_are_ready(tmp_path: Path) -> None:
    wish = desired.write(tmp_path, 2)
    found(tmp_path, wish, entry("rollout-0", "ready"), entry("rollout-2", "ready"))
    assert await waited(tmp_path, wish) == []


async def test_a_wait_that_runs_out_says_what_it_waited_for(tmp_path: Path) -> None:
    wish = desired.write(tmp_path, 3)
    found(tmp_path, wish, entry("rollout-0", "draining"), entry("rollout-1", "backing off", "restart in 2.0 s"))
    with pytest.raises(WaitTimeout) as late:
        await waited(tmp_path, wish)
    assert str(late.value) == (
        "waited 0 s for rollout-0 to drain; rollout-1: backing off, restart in 2.0 s; 2 rollout workers to be started; "
        "the wish stands; `onlinerlhf status` shows what becomes of it"
    )


async def test_workers_that_are_too_many_are_waited_for_though_all_are_ready(tmp_path: Path) -> None:
    wish = desired.write(tmp_path, 1)
    found(tmp_path, wish, entry("rollout-0", "ready"), entry("rollout-1", "ready"))
    with pytest.raises(WaitTimeout, match="waited 0 s for 1 rollout worker to be told to drain"):
        await waited(tmp_path, wish)


async def test_a_platform_that_has_not_seen_the_wish_is_waited_for(tmp_path: Path) -> None:
    found(tmp_path, Wish(num_workers=1, id="before"), entry("rollout-0", "ready"))
    with pytest.raises(WaitTimeout, match="`onlinerlhf up` to take up the wish"):
        await waited(tmp_path, desired.write(tmp_path, 1))


async def test_a_wish_that_cannot_be_fulfilled_is_not_waited_for(tmp_path: Path) -> None:
    wish = desired.write(tmp_path, 2)
    found(tmp_path, wish, entry("rollout-0", "ready"), entry("rollout-1", "failed", "does not start: no memory left"))
    with pytest.raises(StartupError, match="rollout-1 does not start: no memory left; the others go on"):
        await waited(tmp_path, wish, seconds=60)
    desired.write(tmp_path, 4)
    with pytest.raises(Unavailable, match="a newer wish, for 4 rollout workers, took this one's place"):
        await waited(tmp_path, wish, seconds=60)
    (tmp_path / "endpoints.json").unlink()
    with pytest.raises(Unavailable, match="the platform ended"):
        await waited(tmp_path, wish, seconds=60)


@pytest.mark.parametrize("arguments", [["rollout", "-1"], ["rollout", "two"], ["rollout", "1.5"], ["reward", "2"]])
def test_nonsense_is_refused(arguments: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["scale", *arguments, "--home", str(tmp_path)])
    assert done.exit_code == 2
    assert f"'{arguments[1]}'" in done.output or "-1 is not in the range x>=0" in done.output or "reward" in done.output


def test_a_run_that_is_not_up_cannot_be_scaled(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["scale", "rollout", "2", "--home", str(tmp_path)])
    assert (done.exit_code, done.output.startswith("Error: no platform is up under ")) == (1, True)
    run_dir = tmp_path / "runs" / "gone"
    run_dir.mkdir(parents=True)
    gone = replace(found(run_dir, Wish(num_workers=1, id="w")), supervisor_pid=2**22 + 5)
    gone.write()
    done = CliRunner().invoke(cli, ["scale", "rollout", "2", "--run-dir", str(run_dir)])
    assert done.output == "Error: run gone is not running any more; `onlinerlhf up` starts one\n".replace("gone", "r")
    assert not (run_dir / "desired.json").exists()


def test_asking_for_none_says_what_that_means_and_need_not_be_waited_for(tmp_path: Path) -> None:
    found(tmp_path, Wish(num_workers=1, id="w"))
    done = CliRunner().invoke(cli, ["scale", "rollout", "0", "--no-wait", "--run-dir", str(tmp_path)])
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "with 0 rollout workers users get no answers, and nothing is sampled",
        "0 rollout workers asked for; `onlinerlhf status` shows them",
    ]
    assert json.loads((tmp_path / "desired.json").read_text())["rollout_workers"] == 0


@pytest.mark.parametrize(("wanted", "most"), [(9, 8), (-1, 8)])
def test_a_plan_has_as_many_workers_as_it_has_places_for(tiny_plan: PlatformPlan, wanted: int, most: int) -> None:
    with pytest.raises(ConfigError, match=f"{wanted} rollout workers; expected 0 to {most}"):
        plan(replace(tiny_plan.spec, rollout_workers=wanted, max_rollout_workers=most))
