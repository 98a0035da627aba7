"""Child processes that are restarted when they die and drained in order when the platform stops.

    start ─► STARTING ─ ready ─► READY ─ exit ─► BACKING_OFF ─► STARTING …
                 │                 └─ told to stop ─► DRAINING ─► STOPPED
                 └─ exit, too often in a row ─► FAILED (an essential child ends the platform with its last line)

Every child leads a process group of its own: Ctrl-C reaches the supervisor alone, and what a killed child leaves
behind goes with its group. The warden ends the groups when the supervisor itself is killed.
"""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from onlinerlhf.core.errors import StartupError, WaitTimeout
from onlinerlhf.local.child import Child, ChildSpec, ChildState, RestartPolicy, is_startup_error, last_line
from onlinerlhf.local.warden import signal_group

_KILL_SECONDS = 5.0
_SPAWN_SECONDS = 5.0


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

    def beside(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Run something as long as the children; whoever asks ends it. Its failure ends the platform."""
        return self._group.create_task(work, name=name)

    def retire(self, name: str) -> None:
        """Have one child drain, and forget it when it is gone. Returns at once."""
        child = self.children[name]
        if not child.is_leaving:
            child.state = ChildState.DRAINING
            self._on_change()
            self._group.create_task(self._retire(child), name=f"retire {name}")

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
        while not child.is_leaving:
            process = await self._spawn(child)
            await self._watch(child, process)
            self._forget_group(process.pid)
            if child.is_leaving:
                return
            await self._back_off(child, process.returncode)
            if child.state is ChildState.FAILED:
                return

    async def _retire(self, child: Child) -> None:
        await self._stop(child)
        self.children.pop(child.spec.name, None)
        self._keepers.pop(child.spec.name, None)
        self._on_change()

    async def _spawn(self, child: Child) -> asyncio.subprocess.Process:
        if not child.is_leaving:
            child.state = ChildState.STARTING
        child.waiting_for = "its process"
        child.spawned.clear()
        try:
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
        finally:
            child.spawned.set()
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
            child.state, child.waiting_for = ChildState.FAILED, f"does not start: {reason}"
            self._on_change()
            if child.spec.is_essential:
                raise StartupError(f"{child.spec.name} {child.waiting_for}")
            self._report(f"{child.spec.name} {child.waiting_for}; the others go on")
            return
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
        keeper = self._keepers.get(child.spec.name)
        if keeper is None:
            # It was retired in this very moment.
            return
        child.state = ChildState.DRAINING
        self._on_change()
        with suppress(TimeoutError):
            async with asyncio.timeout(_SPAWN_SECONDS):
                await child.spawned.wait()
        process = child.process
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(child.spec.drain_seconds):
                    await process.wait()
            except TimeoutError:
                self._report(f"{child.spec.name} did not drain in {child.spec.drain_seconds:.0f} s and is killed")
            self._forget_group(process.pid)
            await process.wait()
        keeper.cancel()
        child.state = ChildState.STOPPED
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
