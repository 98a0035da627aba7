"""Progress with an estimate of the time left: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

_SECONDS_BETWEEN_LINES = 10.0


class Progress(Protocol):
    """Told after each step of one stage."""

    def advance(self, *, detail: str = "", steps: int = 1) -> None:
        """Some more steps are done."""


class Reporter(Protocol):
    """Where a training says what it is doing."""

    def start(self, name: str, total: int) -> Progress:
        """A stage of `total` steps begins."""

    def say(self, message: str) -> None:
        """One line."""


class Silence:
    """Says nothing."""

    def start(self, name: str, total: int) -> Progress:  # noqa: ARG002
        """A stage nobody watches."""
        return self

    def advance(self, *, detail: str = "", steps: int = 1) -> None:
        """Unheard."""

    def say(self, message: str) -> None:
        """Unheard."""


class Lines:
    """A line at most every ten seconds, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def start(self, name: str, total: int) -> Progress:
        """Announces the stage."""
        return _Line(self, name, total)

    def say(self, message: str) -> None:
        """Prints the line."""
        print(message, file=self._stream, flush=True)


class _Line:
    def __init__(self, lines: Lines, name: str, total: int) -> None:
        self._lines, self._name, self._total = lines, name, total
        self._done = 0
        self._began = self._spoke = time.monotonic()
        self._first: int | None = None

    def advance(self, *, detail: str = "", steps: int = 1) -> None:
        self._done += steps
        now = time.monotonic()
        if self._first is None:
            # It may stand for all that an earlier process did, and says nothing about speed.
            self._first, self._began = self._done, now
        if now - self._spoke < _SECONDS_BETWEEN_LINES and self._done < self._total:
            return
        self._spoke = now
        left = (now - self._began) / max(1, self._done - self._first) * (self._total - self._done)
        is_known = self._done > self._first or self._done == self._total
        estimate = f" ({left:.0f} s left)" if is_known else ""
        self._lines.say(f"{self._name}: {self._done}/{self._total} {detail}{estimate}")


class _Bar:
    def __init__(self, bars: RichProgress, name: str, total: int) -> None:
        self._bars = bars
        self._task = bars.add_task(name, total=total, detail="")

    def advance(self, *, detail: str = "", steps: int = 1) -> None:
        self._bars.update(self._task, advance=steps, detail=detail)


class Bars:
    """A bar a stage."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars

    def start(self, name: str, total: int) -> Progress:
        """Adds a bar."""
        return _Bar(self._bars, name, total)

    def say(self, message: str) -> None:
        """Prints above the bars."""
        self._bars.console.print(message, markup=False, highlight=False, emoji=False)


@contextmanager
def reporter(stream: TextIO | None = None) -> Iterator[Reporter]:
    """Bars if `stream` (standard error by default) is a terminal, else lines."""
    stream = stream or sys.stderr
    if not stream.isatty():
        yield Lines(stream)
        return
    columns = (
        TextColumn("{task.description:>24}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    with RichProgress(*columns, console=Console(file=stream)) as bars:
        yield Bars(bars)
