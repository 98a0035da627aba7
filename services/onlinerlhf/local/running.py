"""A platform that runs while a block runs: start in order, wait until ready, drain at the end."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from onlinerlhf.core.errors import NotFound, StartupError, WaitTimeout
from onlinerlhf.local import credentials, desired, ports, probes
from onlinerlhf.local import endpoints as endpoint_files
from onlinerlhf.local.child import ChildSpec, Probe, RestartPolicy
from onlinerlhf.local.desired import Wish
from onlinerlhf.local.endpoints import Endpoints, ProcessEntry
from onlinerlhf.local.platform import PlatformPlan, ProcessPlan
from onlinerlhf.local.scaling import WorkerScaler
from onlinerlhf.local.supervisor import Supervisor, supervised
from onlinerlhf.runtime.tasks import end

Report = Callable[[str], None]
REDIS_START_SECONDS = 60.0
_POLL_SECONDS = 0.5


class RunningPlatform:
    """Handle on a platform that is up."""

    def __init__(self, plan: PlatformPlan) -> None:
        self.plan = plan
        self.supervisor: Supervisor | None = None
        self._wish = Wish(num_workers=plan.spec.rollout_workers, id="")

    def endpoints(self) -> Endpoints:
        """Where everything is right now."""
        return Endpoints(
            run_id=self.plan.spec.run_id,
            run_dir=str(self.plan.spec.run_dir),
            redis_url=self.plan.redis_url,
            supervisor_pid=os.getpid(),
            http=self.plan.http,
            processes=tuple(self._entry(process) for process in self._processes()),
            desired_workers=self._wish.num_workers,
            max_workers=len(self.plan.workers),
            wish=self._wish.id,
        )

    def take_wish(self, wish: Wish) -> None:
        """From now on so many rollout workers are wanted, and everybody may know."""
        self._wish = wish
        self.endpoints().write()

    def kill_all(self) -> None:
        """SIGKILL every process at once."""
        if self.supervisor is not None:
            self.supervisor.kill_all()

    def _processes(self) -> Iterator[ProcessPlan]:
        """Rooms, and of the rollout workers those that were started and are not gone."""
        workers = {worker.name for worker in self.plan.workers}
        started = self.supervisor.children if self.supervisor is not None else {}
        yield from (process for process in self.plan.processes if process.name not in workers)
        yield from (worker for worker in self.plan.workers if worker.name in started)

    def _entry(self, process: ProcessPlan) -> ProcessEntry:
        child = self.supervisor.children.get(process.name) if self.supervisor is not None else None
        return ProcessEntry(
            name=process.name,
            address=process.address,
            pid=child.pid if child is not None else None,
            restarts=child.restarts if child is not None else 0,
            state=str(child.state) if child is not None else "planned",
            reason="" if child is None or child.ready.is_set() else child.waiting_for,
        )


@asynccontextmanager
async def running(
    plan: PlatformPlan,
    *,
    ready_timeout_seconds: float = 300.0,
    policy: RestartPolicy | None = None,
    report: Report = lambda _line: None,
) -> AsyncIterator[RunningPlatform]:
    """Everything is ready inside the block, and nothing is left running after it."""
    refuse_second_start(plan.spec.run_dir)
    platform = RunningPlatform(plan)
    path = plan.spec.run_dir / endpoint_files.FILE_NAME
    try:
        plan.write()
        # What an earlier platform of this run was asked for does not count.
        desired.write(plan.spec.run_dir, plan.spec.rollout_workers)
        with ports.kept([worker.address for worker in plan.workers]):
            async with supervised(
                lambda: plan.drain_order, policy=policy, on_change=lambda: platform.endpoints().write(), report=report
            ) as supervisor:
                platform.supervisor = supervisor
                for step in start_steps(plan):
                    await _start(supervisor, plan, step, ready_timeout_seconds, report)
                if plan.spec.redis_url is not None:
                    platform.endpoints().write()
                async with _scaled(platform, supervisor, report):
                    yield platform
    finally:
        path.unlink(missing_ok=True)
        shutil.rmtree(plan.socket_dir, ignore_errors=True)


@asynccontextmanager
async def _scaled(platform: RunningPlatform, supervisor: Supervisor, report: Report) -> AsyncIterator[None]:
    """Rollout workers come and go as they are asked for."""
    scaler = WorkerScaler(
        platform.plan,
        supervisor,
        child_spec=lambda process: _child_spec(platform.plan, process, is_essential=False),
        on_wish=platform.take_wish,
        report=report,
    )
    task = supervisor.beside(scaler.run(), name="rollout workers")
    try:
        yield
    finally:
        # Nothing is started any more when the drain begins.
        await end([task])
        report("draining: gateway, rollout, reward, learner, redis")


def start_steps(plan: PlatformPlan) -> tuple[tuple[ProcessPlan, ...], ...]:
    """Redis first, then the learner, which publishes version 1, then everything that needs a version."""
    by_name = {process.name: process for process in plan.processes}
    first = [(by_name[name],) for name in ("redis", "learner") if name in by_name]
    rest = tuple(process for process in plan.processes if process.name not in ("redis", "learner"))
    return (*first, rest)


def refuse_second_start(run_dir: Path) -> None:
    """Two platforms on one run directory would share one append-only file."""
    try:
        other = endpoint_files.read(run_dir)
    except NotFound:
        return
    if other.is_running:
        raise StartupError(f"run {other.run_id} is already up (process {other.supervisor_pid}) in {run_dir}")


async def _start(
    supervisor: Supervisor, plan: PlatformPlan, step: Sequence[ProcessPlan], timeout_seconds: float, report: Report
) -> None:
    if step[0].name == "learner":
        await _wait_for_redis(plan.redis_url)
        await credentials.ensure(plan.redis_url, plan.spec.run_id, plan.spec.run_dir)
    names = [process.name for process in step]
    report(f"starting {', '.join(names)}")
    for process in step:
        supervisor.start(_child_spec(plan, process, is_essential=True))
    await supervisor.wait_ready(names, timeout_seconds=timeout_seconds)


def _child_spec(plan: PlatformPlan, process: ProcessPlan, *, is_essential: bool) -> ChildSpec:
    return ChildSpec(
        name=process.name,
        command=process.command,
        environment=process.environment,
        log_path=plan.log_path(process.name),
        probe=_probe(plan, process),
        drain_seconds=process.drain_seconds,
        is_essential=is_essential,
    )


def _probe(plan: PlatformPlan, process: ProcessPlan) -> Probe:
    if process.name == "redis":
        return partial(probes.redis_waits_for, plan.redis_url)
    return partial(probes.room_waits_for, process.address)


async def _wait_for_redis(url: str) -> None:
    """An embedded Redis is ready by now; one that somebody else runs may still be on its way."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + REDIS_START_SECONDS
    while reason := await probes.redis_waits_for(url):
        if loop.time() > deadline:
            raise WaitTimeout(f"not ready within {REDIS_START_SECONDS:.0f} s: {reason}")
        await asyncio.sleep(_POLL_SECONDS)
