"""Asks Redis on behalf of a call that must not wait: half a second without a sign of life is no answer.

A sign of life is an answer to anybody: where thousands ask at once, the last one waits for its turn and not for a
Redis that is away. Silence is counted in slices by one timer for all, and a slice that ends late counts for nothing: a
busy process does not take its own pauses for one of Redis's.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

T = TypeVar("T")

SILENT_SECONDS: Final = 0.5
MOST_SECONDS: Final = 5.0
"""However many others are answered, and however busy this process is."""
_NUM_SLICES: Final = 5
_SLICE_SECONDS: Final = SILENT_SECONDS / _NUM_SLICES


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    at_seconds: float
    num_silent: int
    """Slices of silence counted until then."""


class Impatience:
    """One for those whose answers are signs of life to each other."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[bool], _Start] = {}
        """Who waits, the longest first, for whether there is an answer."""
        self._num_silent = 0
        self._num_silent_at_answer = 0
        self._is_watching = False

    async def __call__(self, call: Callable[[], Awaitable[T]]) -> T:
        """The call's result, or its error; TimeoutError where Redis is silent."""
        loop = asyncio.get_running_loop()
        asked = asyncio.ensure_future(self._heard(call))
        is_answered: asyncio.Future[bool] = loop.create_future()
        asked.add_done_callback(partial(_answered, is_answered))
        self._waiting[is_answered] = _Start(at_seconds=loop.time(), num_silent=self._num_silent)
        if not self._is_watching:
            self._watch(loop)
        try:
            if not await is_answered:
                raise TimeoutError
            return asked.result()
        finally:
            del self._waiting[is_answered]
            asked.cancel()

    async def _heard(self, call: Callable[[], Awaitable[T]]) -> T:
        result = await call()
        self._num_silent_at_answer = self._num_silent
        return result

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_watching = True
        loop.call_later(_SLICE_SECONDS, self._look, loop, loop.time() + _SLICE_SECONDS)

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        """At the end of a slice."""
        if not self._waiting:
            self._is_watching = False
            return
        now = loop.time()
        if now - due < _SLICE_SECONDS / 2:
            self._num_silent += 1
        for is_answered, start in self._waiting.items():
            num_silent = self._num_silent - max(start.num_silent, self._num_silent_at_answer)
            if num_silent < _NUM_SLICES and now - start.at_seconds < MOST_SECONDS:
                break
            if not is_answered.done():
                is_answered.set_result(False)
        self._watch(loop)


def _answered(is_answered: "asyncio.Future[bool]", asked: "asyncio.Future[Any]") -> None:
    if not asked.cancelled():
        # Retrieved, also where nobody waits for its error any more.
        asked.exception()
    if not is_answered.done():
        is_answered.set_result(True)
