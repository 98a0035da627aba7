"""JSON lines on stderr: ts, level, room, logger, event, and what `extra` adds.

An exception is logged as its types and stack. Its message is kept only where its class cannot quote a request: a
UnicodeDecodeError or a KeyError carries the very text it stumbled over.
"""

import logging
import sys
import traceback
from types import TracebackType
from typing import Final

from pythonjsonlogger.json import JsonFormatter

from onlinerlhf.core.errors import OnlineRLHFError

MESSAGE_IS_SAFE: Final = (
    OnlineRLHFError,
    OSError,
    RuntimeError,
    ImportError,
    AttributeError,
    TypeError,
    NameError,
    MemoryError,
)
_QUIET: Final = ("asyncio", "urllib3", "filelock", "httpx", "matplotlib")


def setup(room: str, *, level: str) -> None:
    """Log this process to stderr as `room`. Replaces whatever was set up before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(room))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def describe_exception(error: BaseException, *, safe: tuple[type[BaseException], ...] = MESSAGE_IS_SAFE) -> str:
    """Types and stack of an exception and what caused it, with messages of `safe` classes only."""
    parts = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        message = f": {current}" if isinstance(current, safe) else ""
        parts.append("".join(traceback.format_tb(current.__traceback__)) + type(current).__qualname__ + message)
        if isinstance(current, BaseExceptionGroup):
            parts.extend(describe_exception(inner, safe=safe) for inner in current.exceptions)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\ncaused by\n".join(parts)


class _Formatter(JsonFormatter):
    def __init__(self, room: str) -> None:
        super().__init__(
            "{levelname}{name}{message}",
            style="{",
            rename_fields={"levelname": "level", "name": "logger", "message": "event", "exc_info": "exception"},
            static_fields={"room": room},
            timestamp="ts",
        )

    def formatException(  # noqa: N802 - overrides logging.Formatter
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        return "" if ei[1] is None else describe_exception(ei[1])
