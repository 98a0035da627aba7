"""Who looks for personal data and secrets. All scanners fail closed: an answer is complete, or it is an error."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from onlinerlhf.gateway.pii.detectors import find
from onlinerlhf.gateway.pii.failures import ScreenFailed
from onlinerlhf.gateway.pii.findings import Finding, without_overlaps
from onlinerlhf.gateway.pii.process_scanner import ProcessScanner

__all__ = ["CombinedScanner", "PatternScanner", "ProcessScanner", "Scanner", "ScreenFailed", "build_scanner"]

INLINE_CHARACTERS = 4000
"""Scanned in about a millisecond: a thread would cost more than it frees."""


class Scanner(Protocol):
    """Something that finds, or raises ScreenFailed."""

    async def scan(self, text: str) -> list[Finding]:
        """Sorted by start, none overlapping another; offsets into `text`."""

    async def close(self) -> None:
        """Give up what it holds."""


class PatternScanner:
    """`find`, off the event loop where the text is long, and bounded in time."""

    def __init__(self, *, timeout_seconds: float = 2.0, search: Callable[[str], list[Finding]] = find) -> None:
        self._timeout_seconds = timeout_seconds
        self._search = search

    async def scan(self, text: str) -> list[Finding]:
        """Everything the patterns find."""
        if len(text) <= INLINE_CHARACTERS:
            return self._search(text)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await asyncio.to_thread(self._search, text)
        except TimeoutError:
            message = f"the patterns did not finish a text of {len(text)} characters in {self._timeout_seconds} s"
            raise ScreenFailed(message) from None

    async def close(self) -> None:
        """It holds nothing."""


class CombinedScanner:
    """What any of several finds. If one fails, all do."""

    def __init__(self, scanners: Sequence[Scanner]) -> None:
        self._scanners = tuple(scanners)

    async def scan(self, text: str) -> list[Finding]:
        """One after the other, the cheap one first."""
        findings = [found for scanner in self._scanners for found in await scanner.scan(text)]
        return without_overlaps(findings)

    async def close(self) -> None:
        """All of them."""
        for scanner in self._scanners:
            await scanner.close()


def build_scanner(ner_command: Sequence[str] | None, *, timeout_seconds: float) -> Scanner:
    """The patterns, and the engine that `ner_command` starts if there is one. Nothing is started yet."""
    patterns = PatternScanner(timeout_seconds=timeout_seconds)
    if not ner_command:
        return patterns
    return CombinedScanner([patterns, ProcessScanner(ner_command, timeout_seconds=timeout_seconds)])
