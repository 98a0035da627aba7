"""Around the whole application: a body is taken in whole, bounded in size and time, and no error gets past."""

import asyncio
import time
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from onlinerlhf.gateway.http import errors, metrics
from onlinerlhf.gateway.http.settings import FrontSettings

_CLIENT_GONE: Final = 499
"""What proxies write down for a client that did not wait."""
_HEADER_BYTES: Final = 32
"""What a header costs beside its bytes."""


class _TooLarge(Exception):
    """The body is larger than any may be."""


class _Gone(Exception):
    """The client went away before its request was complete."""


class Border:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, settings: FrontSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by uvicorn once a request."""
        if scope["type"] != "http":
            raise RuntimeError(f"only http is served, not {scope['type']}")
        started_at, status = time.monotonic(), 0

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._serve(scope, receive, watched_send)
        except Exception as error:  # noqa: BLE001 - the edge of every request
            if not status:
                await errors.unexpected(error)(scope, receive, watched_send)
            elif not scope.get(errors.LOGGED):
                # Too late for another answer; uvicorn closes the connection.
                errors.unexpected(error)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            took_seconds = time.monotonic() - started_at
            metrics.SECONDS.labels(route, str(status or _CLIENT_GONE)).observe(took_seconds)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        closing = {"Connection": "close"}
        if _head_bytes(scope) > self._settings.max_head_bytes:
            message = f"path and headers have more than {self._settings.max_head_bytes} bytes"
            await errors.respond(431, message, code="headers_too_large", headers=closing)(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                body = await self._body(scope, receive)
        except _Gone:
            return
        except TimeoutError:
            message = f"the body did not come within {self._settings.body_seconds:g} s"
            await errors.respond(408, message, code="too_slow", headers=closing)(scope, receive, send)
        except _TooLarge:
            message = f"the body has more than {self._settings.max_body_bytes} bytes"
            await errors.respond(413, message, code="too_large", headers=closing)(scope, receive, send)
        else:
            await self._app(scope, _replaying(body, receive), send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        for name, value in scope["headers"]:
            # The parser has made sure that it is a number.
            if name == b"content-length" and int(value) > self._settings.max_body_bytes:
                raise _TooLarge
        chunks: list[bytes] = []
        num_bytes = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            chunk = message.get("body", b"")
            num_bytes += len(chunk)
            if num_bytes > self._settings.max_body_bytes:
                raise _TooLarge
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)


def _head_bytes(scope: Scope) -> int:
    """One that came all at once has not been bounded yet."""
    headers = sum(len(name) + len(value) + _HEADER_BYTES for name, value in scope["headers"])
    return headers + len(scope.get("raw_path") or b"") + len(scope["query_string"])


def _replaying(body: bytes, receive: Receive) -> Receive:
    """The body once more, then whatever comes: that the client is gone."""
    is_given = False

    async def again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
