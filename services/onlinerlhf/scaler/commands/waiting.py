"""Bounded waits that say what they wait for."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import click

from onlinerlhf.core.errors import LimitReached, Unavailable, WaitTimeout

POLL_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait and how often to look; time is passed in, so that tests need none."""

    seconds: float
    poll_seconds: float = field(default_factory=lambda: POLL_SECONDS)
    clock: Callable[[], float] = field(default=time.monotonic)
    sleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep)

    async def until(self, look: Callable[[], Awaitable[str]], *, what: str) -> float:
        """Look until there is nothing to wait for; each new answer is printed. Returns the seconds it took.

        `look` says what is waited for, and nothing when there is nothing. An API server that is away for a moment is
        waited for like the rest. Raises WaitTimeout with the last answer.
        """
        started, last = self.clock(), ""
        while True:
            try:
                waits_for = await look()
            except (Unavailable, LimitReached) as error:
                waits_for = str(error)
            waited = self.clock() - started
            if not waits_for:
                return waited
            if waits_for != last:
                click.echo(f"  {waited:5.0f} s  {waits_for}")
                last = waits_for
            if waited >= self.seconds:
                raise WaitTimeout(f"{what}: not within {self.seconds:g} s; last waited for: {waits_for}")
            await self.sleep(min(self.poll_seconds, max(0.0, self.seconds - waited)))


def ago(seconds: float) -> str:
    """A length of time in at most two units."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02d}h"
