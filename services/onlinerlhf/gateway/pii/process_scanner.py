"""An engine in a process of its own, so that its memory, its crashes and its endless loops stay there.

One JSON object a line. The engine says {"ready": true} once, or {"error": "one line"} and ends. Then, one at a time:

    to it    {"id": 7, "text": "..."}
    from it  {"id": 7, "findings": [["person_name", 11, 18]]}

Whatever else comes, or comes too late, ends the process by its pid and raises ScreenFailed; the next text starts a new
one, after a pause that doubles while starts or answers keep failing. What the engine writes to standard error is
discarded, since it may hold the text.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from onlinerlhf.gateway.pii.failures import ScreenFailed
from onlinerlhf.gateway.pii.findings import Finding, Kind, without_overlaps

MAX_LINE_BYTES = 1 << 20
MAX_PAUSE_SECONDS = 30.0
_END_SECONDS = 5.0


class ProcessScanner:
    """Runs `command` and asks it. For one event loop."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        timeout_seconds: float = 2.0,
        start_timeout_seconds: float = 60.0,
        max_characters: int = 50_000,
        first_pause_seconds: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = tuple(command)
        self._timeout_seconds = timeout_seconds
        self._start_timeout_seconds = start_timeout_seconds
        self._max_characters = max_characters
        self._first_pause_seconds = first_pause_seconds
        self._clock = clock
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._next_id = 0
        self._num_failures = 0
        self._not_before = 0.0

    @property
    def pid(self) -> int | None:
        """Of the engine now running."""
        return None if self._process is None else self._process.pid

    async def scan(self, text: str) -> list[Finding]:
        """What the engine finds. Waits for its turn within the same time limit."""
        if len(text) > self._max_characters:
            raise ScreenFailed(f"the engine takes {self._max_characters} characters, not {len(text)}")
        limit = self._timeout_seconds + (self._start_timeout_seconds if self._process is None else 0.0)
        try:
            async with asyncio.timeout(limit):
                await self._turn.acquire()
        except TimeoutError:
            raise ScreenFailed(f"the engine was busy with other texts for {limit} s") from None
        try:
            return await self._asked(text)
        finally:
            self._turn.release()

    async def close(self) -> None:
        """End the engine."""
        async with self._turn:
            await self._end()

    async def _asked(self, text: str) -> list[Finding]:
        if self._process is None and self._clock() < self._not_before:
            raise ScreenFailed("the engine failed and is started again only after a pause")
        try:
            process = await self._running()
            findings = await self._exchange(process, text)
        except BaseException as error:
            # Also when cancelled: an answer nobody waits for would be taken for the next one's.
            await asyncio.shield(self._end())
            if isinstance(error, ScreenFailed):
                self._pause()
            raise
        self._num_failures = 0
        return findings

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        await self._end()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=MAX_LINE_BYTES,
            )
        except OSError as error:
            raise ScreenFailed(f"the engine cannot be started: {error.strerror}") from None
        greeting = await self._line(self._process, self._start_timeout_seconds, "start")
        if greeting.get("ready") is not True:
            raise ScreenFailed(f"the engine did not start: {str(greeting.get('error', 'no reason given'))[:200]}")
        return self._process

    async def _exchange(self, process: asyncio.subprocess.Process, text: str) -> list[Finding]:
        self._next_id += 1
        question = json.dumps({"id": self._next_id, "text": text}) + "\n"
        if process.stdin is None:
            raise ScreenFailed("the engine has no standard input")
        process.stdin.write(question.encode("ascii"))
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await process.stdin.drain()
        except TimeoutError:
            raise ScreenFailed(f"the engine did not take a text in {self._timeout_seconds} s") from None
        except OSError:
            raise ScreenFailed("the engine ended before it took a text") from None
        answer = await self._line(process, self._timeout_seconds, "answer")
        if answer.get("id") != self._next_id:
            raise ScreenFailed("the engine answered another question")
        return parsed_findings(answer.get("findings"), len(text))

    async def _line(self, process: asyncio.subprocess.Process, seconds: float, what: str) -> dict[str, object]:
        if process.stdout is None:
            raise ScreenFailed("the engine has no standard output")
        try:
            async with asyncio.timeout(seconds):
                line = await process.stdout.readline()
        except TimeoutError:
            raise ScreenFailed(f"the engine did not {what} in {seconds} s") from None
        except ValueError:
            raise ScreenFailed(f"the engine sent a line longer than {MAX_LINE_BYTES} bytes") from None
        if not line.endswith(b"\n"):
            raise ScreenFailed(f"the engine ended instead of an {what}" if what == "answer" else "the engine ended")
        try:
            value = json.loads(line)
        except ValueError:
            raise ScreenFailed("the engine sent a line that is not JSON") from None
        if not isinstance(value, dict):
            raise ScreenFailed("the engine sent a line that is not a JSON object")
        return value

    def _pause(self) -> None:
        seconds = min(MAX_PAUSE_SECONDS, self._first_pause_seconds * 2**self._num_failures)
        self._num_failures = min(self._num_failures + 1, 16)
        self._not_before = self._clock() + seconds

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if process.returncode is None:
            # By its pid, and hard: an engine that hangs listens to nothing else.
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        async with asyncio.timeout(_END_SECONDS):
            await process.wait()


def parsed_findings(value: object, num_characters: int) -> list[Finding]:
    """Triples of kind, start and end within the text; anything else raises ScreenFailed."""
    if not isinstance(value, list):
        raise ScreenFailed("the engine's findings are not a list")
    return without_overlaps([_parsed(item, num_characters) for item in value])


def _parsed(item: object, num_characters: int) -> Finding:
    match item:
        case [str(kind), int(start), int(end)] if kind in set(Kind) and 0 <= start < end <= num_characters:
            return Finding(kind=Kind(kind), start=start, end=end)
    raise ScreenFailed("the engine's findings are not kinds with a start and an end within the text")
