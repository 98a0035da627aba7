"""One question being answered: its answers' events as they come, and the account when it ends, however it ends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from onlinerlhf.core.errors import OnlineRLHFError, Unavailable
from onlinerlhf.core.samples import VersionSpan
from onlinerlhf.gateway.requests.lane import AnswerCall, AnswerEnd, AnswerTokens
from onlinerlhf.gateway.requests.questions import Given
from onlinerlhf.runtime.tasks import end

_QUEUED_EVENTS = 64
"""Of all answers together; what a client does not read waits with the answers' calls, at most max_tokens each."""


@dataclass(slots=True)
class Made:
    """What one answer has come to so far."""

    sample_id: str
    texts: list[str] = field(default_factory=list)
    num_tokens: int = 0
    spans: tuple[VersionSpan, ...] = ()
    is_complete: bool = False


class Answering:
    """An async context manager; leaving it cancels what still runs and settles the account."""

    def __init__(
        self,
        calls: Sequence[AnswerCall],
        sample_ids: Sequence[str],
        *,
        given: Given,
        prompt_token_ids: Sequence[int],
        on_end: Callable[[Sequence[Made], str], None],
    ) -> None:
        self.given = given
        self.prompt_token_ids = tuple(prompt_token_ids)
        self.sample_ids = tuple(sample_ids)
        self._calls = calls
        self._made = [Made(sample_id) for sample_id in sample_ids]
        self._on_end = on_end
        self._events: asyncio.Queue[tuple[int, AnswerTokens | AnswerEnd | OnlineRLHFError]] = asyncio.Queue(
            _QUEUED_EVENTS
        )
        self._readers: list[asyncio.Task[None]] = []
        self._outcome = "cancelled"

    async def __aenter__(self) -> Self:
        if len(self._calls) > 1:
            self._readers = [
                asyncio.create_task(self._read(index, call), name=f"answer {index}")
                for index, call in enumerate(self._calls)
            ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for call in self._calls:
            call.cancel()
        # Before anything that waits: a cancelled call may not get to do more.
        self._on_end(self._made, self._outcome)
        if self._readers:
            await end(self._readers)

    async def __aiter__(self) -> AsyncIterator[tuple[int, AnswerTokens | AnswerEnd]]:
        """(number of the answer, event). Raises what ended an answer early."""
        try:
            source = self._merged() if self._readers else self._one()
            async for index, event in source:
                self._note(index, event)
                yield index, event
            self._outcome = "completed"
        except OnlineRLHFError:
            self._outcome = "failed"
            raise

    async def _one(self) -> AsyncIterator[tuple[int, AnswerTokens | AnswerEnd]]:
        async for event in self._calls[0]:
            yield 0, event

    async def _merged(self) -> AsyncIterator[tuple[int, AnswerTokens | AnswerEnd]]:
        num_left = len(self._calls)
        while num_left:
            index, event = await self._events.get()
            if isinstance(event, OnlineRLHFError):
                raise event
            yield index, event
            num_left -= isinstance(event, AnswerEnd)

    async def _read(self, index: int, call: AnswerCall) -> None:
        try:
            async for event in call:
                await self._events.put((index, event))
        except OnlineRLHFError as error:
            await self._events.put((index, error))
        except Exception as error:  # noqa: BLE001 - the edge of a task: whoever reads the queue must hear of it
            failure = Unavailable(f"an answer failed ({type(error).__name__})")
            failure.__cause__ = error
            await self._events.put((index, failure))

    def _note(self, index: int, event: AnswerTokens | AnswerEnd) -> None:
        made = self._made[index]
        if isinstance(event, AnswerTokens):
            made.texts.append(event.text)
            made.num_tokens += len(event.token_ids)
        else:
            made.spans, made.is_complete = event.version_spans, True
