"""Where something planted may turn up: everything a process writes, and everything it keeps in Redis."""

import io
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from redis.asyncio import Redis

from onlinerlhf.runtime import logs

_CLIENTS = ("httpx", "httpcore", "hpack", "urllib3")
"""Loggers of the test's own clients."""


class _Plain(logging.Formatter):
    """Without the exception, which is for the formatter of production to tell."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.getMessage()} {record.args}"


@contextmanager
def everything_logged() -> Iterator[io.StringIO]:
    """All loggers from DEBUG up, in the format of production, and once more as message and arguments."""
    text = io.StringIO()
    handlers = [logging.StreamHandler(text) for _ in range(2)]
    handlers[0].setFormatter(logs._Formatter("gateway"))
    handlers[1].setFormatter(_Plain())
    root, quiet = logging.getLogger(), [logging.getLogger(name) for name in _CLIENTS]
    before = [logger.level for logger in (root, *quiet)]
    root.setLevel(logging.DEBUG)
    for logger in quiet:
        logger.setLevel(logging.ERROR)
    for handler in handlers:
        root.addHandler(handler)
    try:
        yield text
    finally:
        for handler in handlers:
            root.removeHandler(handler)
        for logger, level in zip((root, *quiet), before, strict=True):
            logger.setLevel(level)


async def everything_stored(client: Redis) -> dict[str, bytes]:
    """Each key of the server with all its fields, members and values."""
    return {key.decode(): await _value(client, key) async for key in _keys(client)}


async def _keys(client: Redis) -> AsyncIterator[bytes]:
    async for key in client.scan_iter(count=1000):
        yield key


async def _value(client: Redis, key: bytes) -> bytes:
    match await client.type(key):
        case b"string":
            found: Any = await client.get(key)
        case b"hash":
            found = await client.hgetall(key)
        case b"list":
            found = await client.lrange(key, 0, -1)
        case b"set":
            found = await client.smembers(key)
        case b"zset":
            found = await client.zrange(key, 0, -1)
        case b"stream":
            found = await client.xrange(key)
        case _:
            found = None
    return b"\n".join(_flat(found))


def _flat(value: Any) -> Iterator[bytes]:
    match value:
        case bytes():
            yield value
        case dict():
            for field, each in value.items():
                yield from _flat(field)
                yield from _flat(each)
        case list() | tuple() | set():
            for each in value:
                yield from _flat(each)
