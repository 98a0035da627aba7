"""Commands of many callers in one trip to Redis.

What is asked for while a trip is under way goes out with the next one, so the busier a process is, the more each trip
carries. A caller sees what a single command would have given: its own reply, its own error, or the connection's.
"""

import asyncio
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, ResponseError

from onlinerlhf.runtime.redis import SOCKET_TIMEOUT_SECONDS, Argument, Script
from onlinerlhf.runtime.tasks import end

TRIP_BYTES: Final = 16_384
"""As much as Redis reads of a connection at a time. What is more goes by another connection: Redis works them all off,
then syncs its file once, then answers."""
MAX_TRIPS: Final = 32
"""Under way at a time."""


class _Waiting(NamedTuple):
    packed: bytes
    num_replies: int
    replies: "asyncio.Future[list[Any]]"


class Batcher:
    """Takes the place of a client where only single commands and scripts are sent. Close it."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: list[_Waiting] = []
        self._num_bytes = 0
        """Of all that waits."""
        self._is_scheduled = False
        self._trips: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def execute_command(self, *arguments: Argument, **_options: Any) -> Any:
        """One command's reply. What was sent stays sent when the caller is cancelled."""
        (raw,) = await self._queue(_packed(arguments), 1)
        if isinstance(raw, ResponseError):
            raise raw
        # As the client shows it: a hash, for one, comes as a flat list.
        as_shown = self._redis.response_callbacks.get(str(arguments[0]))
        return raw if as_shown is None else as_shown(raw)

    async def execute_all(self, commands: Iterable[Sequence[Argument]]) -> list[Any]:
        """Replies of many commands, as Redis sends them; of one that it refuses its ResponseError."""
        loads: list[asyncio.Future[list[Any]]] = []
        parts: list[bytes] = []
        num_bytes = 0
        for arguments in commands:
            parts.append(_packed(arguments))
            num_bytes += len(parts[-1])
            if num_bytes >= TRIP_BYTES:
                loads.append(self._queue(b"".join(parts), len(parts)))
                parts, num_bytes = [], 0
        if parts:
            loads.append(self._queue(b"".join(parts), len(parts)))
        # All of them are awaited, so that no error is lost.
        results = await asyncio.gather(*loads, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [reply for replies in results if isinstance(replies, list) for reply in replies]

    def _queue(self, packed: bytes, num_replies: int) -> "asyncio.Future[list[Any]]":
        if self._is_closed:
            raise _gone()
        loop = asyncio.get_running_loop()
        replies: asyncio.Future[list[Any]] = loop.create_future()
        self._waiting.append(_Waiting(packed, num_replies, replies))
        self._num_bytes += len(packed)
        if not self._is_scheduled and (not self._trips or self._num_bytes >= TRIP_BYTES):
            self._is_scheduled = True
            loop.call_soon(self._set_out)
        return replies

    async def aclose(self) -> None:
        """Whoever still waits is told that the connection is gone."""
        self._is_closed = True
        await end(self._trips)
        _fail(self._waiting, _gone())
        self._waiting = []

    def _set_out(self) -> None:
        self._is_scheduled = False
        while self._waiting and len(self._trips) < MAX_TRIPS and not self._is_closed:
            trip = asyncio.create_task(self._make(self._next_load()), name="trip to Redis")
            self._trips.add(trip)
            trip.add_done_callback(self._come_back)

    def _next_load(self) -> list[_Waiting]:
        """At least one command."""
        num_bytes, number = 0, 0
        while number < len(self._waiting) and num_bytes < TRIP_BYTES:
            num_bytes += len(self._waiting[number].packed)
            number += 1
        load, self._waiting = self._waiting[:number], self._waiting[number:]
        self._num_bytes -= num_bytes
        return load

    def _come_back(self, trip: asyncio.Task[None]) -> None:
        self._trips.discard(trip)
        self._set_out()

    async def _make(self, load: list[_Waiting]) -> None:
        try:
            replies = await self._exchange(load)
        except asyncio.CancelledError:
            _fail(load, _gone())
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody is to wait in vain
            _fail(load, error)
            return
        place = 0
        for waiting in load:
            if not waiting.replies.done():
                waiting.replies.set_result(replies[place : place + waiting.num_replies])
            place += waiting.num_replies

    async def _exchange(self, load: Sequence[_Waiting]) -> list[Any]:
        """Replies in order; of a command that Redis refuses its error."""
        num_replies = sum(waiting.num_replies for waiting in load)
        pool = self._redis.connection_pool
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            # Given up on the way, a connection closes itself: nobody must read another's replies.
            async with asyncio.timeout(SOCKET_TIMEOUT_SECONDS):
                await connection.send_packed_command(b"".join(waiting.packed for waiting in load))
                return [await _reply(connection) for _ in range(num_replies)]
        finally:
            await pool.release(connection)


async def _reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response(disable_decoding=True, timeout=math.inf)
    except ResponseError as error:
        return error


def _gone() -> ConnectionError:
    return ConnectionError("the connection to Redis was closed")


def _fail(load: list[_Waiting], error: Exception) -> None:
    for waiting in load:
        if not waiting.replies.done():
            waiting.replies.set_exception(error)


def _packed(arguments: Sequence[Argument]) -> bytes:
    return bytes(pack_command(tuple(arguments)))  # type: ignore[arg-type]


async def run_all(redis: Redis, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Argument]]]) -> list[Any]:
    """Replies of many runs of a script, (keys, arguments) each, in one trip where the client is a Batcher.

    Raises the first refusal of Redis, and what a connection raises; then any of them may have run.
    """
    client: object = redis
    if not isinstance(client, Batcher):
        return [await script.run(redis, keys, arguments) for keys, arguments in calls]
    replies = await client.execute_all([script.command(keys, arguments) for keys, arguments in calls])
    for number, reply in enumerate(replies):
        if isinstance(reply, NoScriptError):
            replies[number] = await script.run(redis, *calls[number])
        elif isinstance(reply, ResponseError):
            raise reply
    return replies
