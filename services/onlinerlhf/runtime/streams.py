"""The work streams of a run, seen from outside: groups, backlog, consumers, dead letters, waiting for room.

An entry is one sample. XACK alone never frees it; whoever is done with an entry also deletes it, so the length of a
stream is its backlog: unread and in hand. Nothing trims a work stream; producers wait.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from onlinerlhf.core.errors import WaitTimeout
from onlinerlhf.core.samples import Stage
from onlinerlhf.runtime import metrics, stream_scripts
from onlinerlhf.runtime.consumer import RETURNED, Consumer
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.leases import Delivery
from onlinerlhf.runtime.redis import Argument, Patience, away_reason, command
from onlinerlhf.runtime.tasks import set_within

__all__ = ["RETURNED", "STREAMS", "Consumer", "ConsumerInfo", "DeadLetter", "Delivery", "Streams"]

log = logging.getLogger(__name__)

STREAMS: Final = (Stage.PROMPTS, Stage.ROLLOUTS, Stage.SCORED)
POLL_SECONDS: Final = 0.1
WAIT_LOG_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerInfo:
    """One consumer of a stage."""

    name: str
    """RETURNED is not a process: it holds what was given back and not yet taken again."""
    pending: int
    idle_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """What is kept of an entry that nothing could process. Never its payload."""

    stage: Stage
    entry_id: str
    """Of the letter; begins with the time in milliseconds since 1970."""
    sample_id: str
    attempts: int
    error: str
    """The kind of the last error."""


class Streams:
    """All three streams of a run. With `patience`, everything here waits while Redis is away; without, it raises."""

    def __init__(self, redis: Redis, keys: RunKeys, *, patience: Patience | None = None) -> None:
        self._redis = redis
        self._keys = keys
        self._patience = patience

    async def ensure_groups(self) -> None:
        """Make streams and groups that do not exist; for producers too, so that the first entry has a reader."""
        for stage in STREAMS:
            keys, group = [self._keys.stream(stage)], [self._keys.group]
            await self._call(partial(stream_scripts.ENSURE_GROUP.run, self._redis, keys, group))

    async def backlog(self, stage: Stage) -> int:
        """Entries of a stage that nobody is done with."""
        return int(await self._command("XLEN", self._keys.stream(stage)))

    async def backlogs(self) -> dict[Stage, int]:
        """Backlog of every stage."""
        backlogs = {stage: await self.backlog(stage) for stage in STREAMS}
        for stage, num in backlogs.items():
            metrics.STREAM_BACKLOG.labels(stage).set(num)
        return backlogs

    async def consumers(self, stage: Stage) -> list[ConsumerInfo]:
        """Who reads a stage; empty where nobody ever did."""
        try:
            rows = await self._command("XINFO CONSUMERS", self._keys.stream(stage), self._keys.group)
        except ResponseError as error:
            if "NOGROUP" in str(error) or "no such key" in str(error):
                return []
            raise
        fields = [_fields(row) for row in rows]
        return [
            ConsumerInfo(name=_text(row["name"]), pending=int(row["pending"]), idle_seconds=int(row["idle"]) / 1000)
            for row in fields
        ]

    async def dead_letters(self, stage: Stage, count: int) -> list[DeadLetter]:
        """The newest dead letters of a stage, newest first."""
        rows = await self._command("XREVRANGE", self._keys.dead(stage), "+", "-", "COUNT", count)
        letters = []
        for entry_id, raw in rows:
            fields = {key.decode(): value.decode() for key, value in raw.items()}
            letters.append(
                DeadLetter(
                    stage=Stage(fields["stage"]),
                    entry_id=entry_id.decode(),
                    sample_id=fields["sample"],
                    attempts=int(fields["attempts"]),
                    error=fields["error"],
                )
            )
        return letters

    async def wait_for_room(
        self,
        stages: Sequence[Stage],
        *,
        bound: Callable[[], int] | int,
        what: str,
        stop: asyncio.Event,
        timeout_seconds: float = 3600.0,
    ) -> None:
        """Return as soon as the stages' backlogs add up to less than `bound`, or `stop` is set.

        While Redis is away there is no room. Raises WaitTimeout.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        next_log_seconds = WAIT_LOG_SECONDS
        while not stop.is_set():
            limit = bound if isinstance(bound, int) else bound()
            backlog = await self._backlog_if_reachable(stages)
            if backlog is not None and backlog < limit:
                return
            waited_seconds = loop.time() - started
            seen = "Redis is away" if backlog is None else f"{backlog} entries, bound {limit}"
            if waited_seconds >= timeout_seconds:
                raise WaitTimeout(f"waited {waited_seconds:.0f} s for {what}: {seen}")
            if waited_seconds >= next_log_seconds:
                next_log_seconds += WAIT_LOG_SECONDS
                log.info("waiting", extra={"what": what, "waited_seconds": round(waited_seconds), "seen": seen})
            await set_within(stop, min(POLL_SECONDS, timeout_seconds))

    async def _command(self, *arguments: Argument) -> Any:
        return await self._call(partial(command, self._redis, *arguments))

    async def _call(self, call: Callable[[], Awaitable[Any]]) -> Any:
        return await (call() if self._patience is None else self._patience("read the streams' state", call))

    async def _backlog_if_reachable(self, stages: Sequence[Stage]) -> int | None:
        try:
            return sum([int(await command(self._redis, "XLEN", self._keys.stream(stage))) for stage in stages])
        except (RedisError, OSError) as error:
            if away_reason(error) is None:
                raise
            return None


def _fields(row: Any) -> dict[str, Any]:
    """A map reply, however the client spells it."""
    pairs = row.items() if isinstance(row, dict) else zip(row[::2], row[1::2], strict=True)
    return {_text(key): value for key, value in pairs}


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()
