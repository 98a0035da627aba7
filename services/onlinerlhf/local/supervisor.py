"""Child processes that are restarted when they die and drained in order when the platform stops.

    start ─► STARTING ─ ready ─► READY ─ exit ─► BACKING_OFF ─► STARTING …
                 └─ exit, too often in a row ─► FAILED (ends the platform with the child's last line)

Every child leads a process group of its own: Ctrl-C reaches the supervisor alone, and what a killed child leaves
behind goes with its group. The warden ends the groups when the supervisor itself is killed.
"""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from onlinerlhf.core.errors import StartupError, WaitTimeout
from onlinerlhf.local.warden import signal_group

Probe = Callable[[], Awaitable[str]]
"""Answers what a child still waits for; empty when it is ready."""

_TAIL_BYTES = 16_384
_KILL_SECONDS = 5.0
_STARTUP_ERROR = re.compile(r"onlinerlhf \w+: ")


class ChildState(StrEnum):
    """Where a child is in its life."""

    STARTING = "starting"
    READY = "ready"
    BACKING_OFF = "backing off"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """A process to keep running."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log_path: Path
    probe: Probe
    drain_seconds: float = 30.0
    """From SIGTERM to SIGKILL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """How fast a child is restarted, and when to give up."""

    first_delay_seconds: float = 0.5
    max_delay_seconds: float = 10.0
    max_failed_starts: int = 2
    """Exits in a row without ever having been ready after which the platform ends: a setting is wrong."""
    max_failed_restarts: int = 8
    """The same for a child that was ready once."""
    stable_seconds: float = 30.0
    """Ready for this long, a child's earlier failures are forgotten."""
    probe_seconds: float = 0.25

    def delay_seconds(self, failures: int) -> float:
        """Doubles with every failure in a row, up to the maximum."""
        return float(min(self.first_delay_seconds * 2 ** (failures - 1), self.max_delay_seconds))


@dataclass(slots=True, kw_only=True)
class Child:
    """A supervised process; the supervisor alone writes it."""

    spec: ChildSpec
    state: ChildState = ChildState.STARTING
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    failures: int = 0
    """Exits in a row without a stable time between them."""
    was_ready: bool = False
    ready_since: float = 0.0
    waiting_for: str = "its process"
    log_offset: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        running = self.process is not None and self.process.returncode is None
        return self.process.pid if running and self.process is not None else None


def last_line(path: Path, *, offset: int = 0) -> str:
    """Why a process ended, by what it wrote since `offset`: its start-up error, or else its last line."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(offset, size - _TAIL_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if is_startup_error(line)]
    last = (said or lines or ["it wrote nothing"])[-1]
    try:
        record = json.loads(last)
    except ValueError:
        return last
    return str(record.get("event", last)) if isinstance(record, dict) else last


def is_startup_error(line: str) -> bool:
    """Whether a room says that it cannot start: trying again would not help."""
    return _STARTUP_ERROR.match(line) is not None


class Supervisor:
    """Keeps children running. Use `supervised()`, which drains on the way out."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        policy: RestartPolicy,
        *,
        on_change: Callable[[], None],
        report: Callable[[str], None],
    ) -> None:
        self._group = group
        self._policy = policy
        self._on_change = on_change
        self._report = report
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._warden: subprocess.Popen[str] | None = None
        self.children: dict[str, Child] = {}

    def start(self, spec: ChildSpec) -> None:
        """Start a process and keep it running."""
        if spec.name in self.children:
            raise ValueError(f"{spec.name} is already supervised")
        spec.log_path.parent.mkdir(parents=True, exist_ok=True)
        child = Child(spec=spec)
        self.children[spec.name] = child
        self._keepers[spec.name] = self._group.create_task(self._keep(child), name=f"keep {spec.name}")

    async def wait_ready(self, names: Sequence[str], *, timeout_seconds: float) -> None:
        """Wait until all are ready; a time-out names those that are not and what they wait for."""
        try:
            async with asyncio.timeout(timeout_seconds):
                for name in names:
                    await self.children[name].ready.wait()
        except TimeoutError:
            late = [self.children[name] for name in names if not self.children[name].ready.is_set()]
            reasons = "; ".join(f"{child.spec.name}: {child.waiting_for}" for child in late)
            raise WaitTimeout(f"not ready within {timeout_seconds:.0f} s: {reasons}") from None

    async def drain(self, order: Sequence[Sequence[str]]) -> None:
        """Stop children in order, those of one step together; what does not end in time is killed."""
        known = {name for step in order for name in step}
        for step in (*order, [name for name in self.children if name not in known]):
            children = [self.children[name] for name in step if name in self.children]
            await asyncio.gather(*(self._stop(child) for child in children))
        if self._warden is not None and self._warden.stdin is not None:
            self._warden.stdin.close()
            await asyncio.to_thread(self._warden.wait, _KILL_SECONDS)

    def kill_all(self) -> None:
        """SIGKILL every group at once: the impatient second Ctrl-C."""
        for child in self.children.values():
            if child.pid is not None:
                signal_group(child.pid, signal.SIGKILL)

    async def _keep(self, child: Child) -> None:
        while True:
            process = await self._spawn(child)
            await self._watch(child, process)
            self._forget_group(process.pid)
            if child.state is ChildState.STOPPED:
                return
            await self._back_off(child, process.returncode)

    async def _spawn(self, child: Child) -> asyncio.subprocess.Process:
        child.state, child.waiting_for = ChildState.STARTING, "its process"
        with child.spec.log_path.open("ab") as output:
            child.log_offset = output.tell()
            child.process = await asyncio.create_subprocess_exec(
                *child.spec.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(child.spec.environment),
                start_new_session=True,
            )
        self._tell_warden(f"+{child.process.pid}")
        self._on_change()
        return child.process

    async def _watch(self, child: Child, process: asyncio.subprocess.Process) -> None:
        """Returns when the process has ended."""
        ended = asyncio.create_task(process.wait(), name=f"wait for {child.spec.name}")
        try:
            while not ended.done() and child.state is ChildState.STARTING:
                child.waiting_for = await child.spec.probe()
                if not child.waiting_for and not ended.done() and child.state is ChildState.STARTING:
                    self._became_ready(child)
                await asyncio.wait({ended}, timeout=self._policy.probe_seconds)
            await ended
        finally:
            child.ready.clear()
            ended.cancel()

    def _became_ready(self, child: Child) -> None:
        child.state, child.was_ready = ChildState.READY, True
        child.ready_since = asyncio.get_running_loop().time()
        child.ready.set()
        self._on_change()

    async def _back_off(self, child: Child, code: int | None) -> None:
        if child.state is ChildState.READY and self._was_stable(child):
            child.failures = 0
        child.failures += 1
        child.restarts += 1
        reason = last_line(child.spec.log_path, offset=child.log_offset)
        if child.state is ChildState.STARTING and child.failures >= self._limit(child, reason):
            child.state = ChildState.FAILED
            self._on_change()
            raise StartupError(f"{child.spec.name} does not start: {reason}")
        delay = self._policy.delay_seconds(child.failures)
        child.state, child.waiting_for = ChildState.BACKING_OFF, f"restart in {delay:.1f} s (exit {code}: {reason})"
        self._report(f"{child.spec.name} ended; {child.waiting_for}")
        self._on_change()
        await asyncio.sleep(delay)

    def _limit(self, child: Child, reason: str) -> int:
        if child.was_ready:
            return self._policy.max_failed_restarts
        return 1 if is_startup_error(reason) else self._policy.max_failed_starts

    def _was_stable(self, child: Child) -> bool:
        return asyncio.get_running_loop().time() - child.ready_since >= self._policy.stable_seconds

    async def _stop(self, child: Child) -> None:
        process, child.state = child.process, ChildState.STOPPED
        keeper = self._keepers[child.spec.name]
        if process is None or process.returncode is not None:
            keeper.cancel()
            return
        process.terminate()
        try:
            async with asyncio.timeout(child.spec.drain_seconds):
                await process.wait()
        except TimeoutError:
            self._report(f"{child.spec.name} did not drain in {child.spec.drain_seconds:.0f} s and is killed")
        self._forget_group(process.pid)
        await process.wait()
        keeper.cancel()
        self._on_change()

    def _forget_group(self, pid: int) -> None:
        """What a dead child started dies with it."""
        signal_group(pid, signal.SIGKILL)
        self._tell_warden(f"-{pid}")

    def _tell_warden(self, line: str) -> None:
        if self._warden is None:
            command = [sys.executable, "-m", "onlinerlhf.local.warden"]
            self._warden = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)  # noqa: S603
        if self._warden.stdin is not None and not self._warden.stdin.closed:
            self._warden.stdin.write(line + "\n")
            self._warden.stdin.flush()


@asynccontextmanager
async def supervised(
    drain_order: Callable[[], Sequence[Sequence[str]]],
    *,
    policy: RestartPolicy | None = None,
    on_change: Callable[[], None] = lambda: None,
    report: Callable[[str], None] = lambda _line: None,
) -> AsyncIterator[Supervisor]:
    """A supervisor whose children are all gone when the block ends, however it ends.

    A child that is given up raises StartupError out of the block.
    """
    try:
        async with asyncio.TaskGroup() as group:
            supervisor = Supervisor(group, policy or RestartPolicy(), on_change=on_change, report=report)
            try:
                yield supervisor
            finally:
                await supervisor.drain(drain_order())
    except BaseExceptionGroup as errors:
        raise _first(errors) from None


def _first(errors: BaseException) -> BaseException:
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    return errors
