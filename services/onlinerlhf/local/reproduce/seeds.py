"""Runs the jobs of all seeds, two processes at a time: models first, then both trainings of each seed."""

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onlinerlhf.core.errors import OnlineRLHFError, WaitTimeout
from onlinerlhf.learner.training.progress import Reporter
from onlinerlhf.local.reproduce.layout import MODELS, PPO, PTX, SeedDirectory
from onlinerlhf.local.reproduce.relay import Receiver

NUM_AT_ONCE = 2
_JOB_SECONDS = 4 * 3600.0
_STOP_SECONDS = 60.0
_ERROR_LINES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Starts one process a job."""

    fast: bool
    reporter: Reporter
    turns: asyncio.Semaphore

    async def run(self, directories: Sequence[SeedDirectory]) -> None:
        """Everything that is not done yet. OnlineRLHFError names the job that failed; the others are stopped."""
        try:
            async with asyncio.TaskGroup() as group:
                for directory in directories:
                    group.create_task(self._seed(directory), name=f"seed {directory.seed}")
        except* OnlineRLHFError as failed:
            raise _first(failed) from None

    async def _seed(self, directory: SeedDirectory) -> None:
        await self._job(directory, MODELS)
        async with asyncio.TaskGroup() as group:
            for job in (PTX, PPO):  # The longer one first.
                group.create_task(self._job(directory, job), name=f"seed {directory.seed} {job}")

    async def _job(self, directory: SeedDirectory, job: str) -> None:
        name = f"seed {directory.seed} {job}"
        async with self.turns:
            if directory.result(job) is not None:
                self.reporter.say(f"{name}: is done")
                return
            try:
                async with asyncio.timeout(_JOB_SECONDS):
                    await self._process(directory, job, name)
            except TimeoutError:
                raise WaitTimeout(f"{name} took longer than {_JOB_SECONDS / 3600:.0f} hours") from None

    async def _process(self, directory: SeedDirectory, job: str, name: str) -> None:
        command = [sys.executable, "-m", "onlinerlhf.local.reproduce.job_process", "--root", str(directory.root)]
        command += ["--seed", str(directory.seed), "--job", job, *(["--fast"] if self.fast else [])]
        # A session of its own: Ctrl-C comes to us alone, and we ask it to stop.
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True
        )
        errors: deque[str] = deque(maxlen=_ERROR_LINES)
        receiver = Receiver(self.reporter, name=name)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_lines(process.stdout, receiver.take), name=f"{name} output")
                group.create_task(_lines(process.stderr, errors.append), name=f"{name} errors")
            code = await process.wait()
        finally:
            await _stop(process)
        if code != 0:
            raise OnlineRLHFError(f"{name} failed ({code}): {errors[-1] if errors else 'it said nothing'}")


async def _lines(stream: asyncio.StreamReader | None, take: Callable[[str], object]) -> None:
    assert stream is not None  # noqa: S101 - a pipe was asked for
    async for line in stream:
        text = line.decode(errors="replace").rstrip()
        if text:
            take(text)


async def _stop(process: asyncio.subprocess.Process) -> None:
    """It saves after the step at hand, or is killed."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _first(failed: BaseExceptionGroup[OnlineRLHFError]) -> OnlineRLHFError:
    error: BaseException = failed
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, OnlineRLHFError)  # noqa: S101 - the group holds nothing else
    return error
