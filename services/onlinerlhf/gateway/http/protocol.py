"""uvicorn's protocol with bounds on a request's head: uvicorn itself would take any length of it, and wait for ever."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class ImpatientProtocol(HttpToolsProtocol):
    """Closes a connection whose request line and headers do not come in time, or do not end."""

    def __init__(self, *args: Any, head_seconds: float, max_head_bytes: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_seconds = head_seconds
        self._max_head_bytes = max_head_bytes
        self._is_in_head = False
        self._num_head_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A first request is due."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is due any more."""
        self._head_is_complete()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Called by the parser."""
        super().on_message_begin()
        self._is_in_head = True

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._head_is_complete()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """A request, a part of one, or line ends between two."""
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._is_in_head:
            self._num_head_bytes += len(data)
            if self._num_head_bytes > self._max_head_bytes:
                self.send_400_response("The request's head is too long.")
                return
        if self._is_in_head or not self._is_answering():
            self._expect_head()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._head_seconds, self._give_up)

    def _head_is_complete(self) -> None:
        self._is_in_head, self._num_head_bytes = False, 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self._is_answering():
            self._expect_head()
        elif not self.transport.is_closing():
            self.transport.close()
