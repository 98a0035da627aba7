"""Serves the application on the gateway's own event loop, as one of its background tasks."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

import uvicorn

from onlinerlhf.core.errors import StartupError
from onlinerlhf.gateway.http.app import create_app
from onlinerlhf.gateway.http.front import FrontDesk
from onlinerlhf.gateway.http.protocol import ImpatientProtocol
from onlinerlhf.gateway.http.settings import FrontSettings

log = logging.getLogger(__name__)

_GIVE_UP_SECONDS: Final = 5.0
"""Beyond the drain: cancelled requests may take that long to let go."""


class HttpFront:
    """The HTTP server of a gateway."""

    def __init__(
        self,
        desk: FrontDesk,
        settings: FrontSettings,
        *,
        listen: str,
        is_ready: Callable[[], bool],
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """`ssl_context`: HTTPS. None: plaintext."""
        self._app = create_app(desk, settings, is_ready=is_ready)
        self._settings = settings
        self._listen = listen
        self._ssl_context = ssl_context
        self.address = ""
        """Where it listens; known while it runs."""

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`, then finish what is in flight. Raises StartupError where it cannot listen."""
        with closing(bind(self._listen)) as listener:
            self.address = f"{self._listen.rpartition(':')[0]}:{listener.getsockname()[1]}"
            server = _Server(self._config())
            serving = asyncio.create_task(server.serve(sockets=[listener]), name="http serve")
            stopping = asyncio.create_task(stop.wait(), name="http stop")
            protocol = "http" if self._ssl_context is None else "https"
            log.info("listening", extra={"address": self.address, "protocol": protocol})
            try:
                await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
                server.should_exit = True
                await asyncio.wait_for(serving, self._settings.drain_seconds + _GIVE_UP_SECONDS)
            finally:
                stopping.cancel()
                await _let_go(server, serving)

    def _config(self) -> uvicorn.Config:
        settings = self._settings

        def protocol(*args: Any, **kwargs: Any) -> ImpatientProtocol:
            head_seconds, max_head_bytes = settings.body_seconds, settings.max_head_bytes
            return ImpatientProtocol(*args, head_seconds=head_seconds, max_head_bytes=max_head_bytes, **kwargs)

        context = self._ssl_context
        return uvicorn.Config(
            self._app,
            http=protocol,  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=settings.max_connections,
            timeout_keep_alive=settings.keep_alive_seconds,
            timeout_graceful_shutdown=max(int(settings.drain_seconds), 1),
            ssl_context_factory=None if context is None else lambda _config, _default: context,
        )


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The room handles signals."""
        yield


def bind(listen: str) -> socket.socket:
    """A socket at host:port. Raises StartupError."""
    host, _, port = listen.rpartition(":")
    bare = host.strip("[]")
    # TCP by name, else asyncio leaves Nagle's algorithm on and answers wait 40 ms for an acknowledgement.
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((bare, int(port)))
    except (OSError, ValueError, OverflowError) as error:
        listener.close()
        message = "the address is in use or not of this machine"
        raise StartupError(f"cannot listen for HTTP on {listen}: {message}") from error
    listener.setblocking(False)
    return listener


async def _let_go(server: uvicorn.Server, serving: "asyncio.Task[None]") -> None:
    """Where the end was not waited for: close everything at once."""
    if serving.done():
        return
    server.should_exit = server.force_exit = True
    for task in server.server_state.tasks:
        task.cancel()
    await asyncio.wait((serving,), timeout=_GIVE_UP_SECONDS)
    serving.cancel()
