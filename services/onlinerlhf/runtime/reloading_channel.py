"""A TLS channel whose certificates may change: gRPC's own keeps those it was made with for ever.

    call -> files as before -> the channel there is
                └ changed  -> a new channel for this call and all later ones; the old one closes after its last call

Connections that are open live on under the certificates they began with.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

import grpc

from onlinerlhf.runtime import tls
from onlinerlhf.runtime.certificates import CertificateFiles, ClientTls
from onlinerlhf.runtime.tasks import end

MAX_RETIRED_SECONDS: Final = 3_600
"""Longest life of a channel that takes no more calls: as long as the longest call."""


class ReloadingChannel(grpc.aio.Channel):
    """Made and used on one event loop. Stubs of it need not be made again."""

    def __init__(
        self, certificate_files: CertificateFiles, open_: Callable[[grpc.ChannelCredentials], grpc.aio.Channel]
    ):
        self._files = certificate_files
        self._open = open_
        self._certificates = certificate_files.current()
        self._now = _Generation(open_(tls.channel_credentials(self._certificates)))
        self._retiring: set[asyncio.Task[None]] = set()

    def current(self) -> "_Generation":
        """What the next call goes over."""
        newest = self._files.current()
        if newest is not self._certificates:
            retired, self._certificates = self._now, newest
            self._now = _Generation(self._open(tls.channel_credentials(newest)))
            task = asyncio.create_task(retired.close_after_calls(), name="retired channel")
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
        return self._now

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """As of any channel; so the three below."""
        return _Method(self, "unary_unary", method, args, kwargs)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _Method(self, "unary_stream", method, args, kwargs)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _Method(self, "stream_unary", method, args, kwargs)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _Method(self, "stream_stream", method, args, kwargs)

    async def close(self, grace: float | None = None) -> None:
        """End all calls and connections, those of retired channels too."""
        await end(list(self._retiring))
        await self._now.channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Of the newest channel."""
        return self.current().channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Of the newest channel."""
        await self.current().channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Of the newest channel."""
        await self.current().channel.channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class _Generation:
    """One channel of gRPC's, and how many calls it has in hand."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._num_calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def count(self, call: grpc.aio.Call) -> None:
        """A call that has begun on the channel."""
        self._num_calls += 1
        self._idle.clear()
        call.add_done_callback(self._ended)

    def _ended(self, _call: Any) -> None:
        self._num_calls -= 1
        if self._num_calls == 0:
            self._idle.set()

    async def close_after_calls(self) -> None:
        """For a channel that gets no more of them."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(MAX_RETIRED_SECONDS):
                    await self._idle.wait()
        finally:
            await self.channel.close()


class _Method:
    """What a stub holds: each call goes over the channel of its time."""

    def __init__(
        self, owner: ReloadingChannel, kind: str, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._owner = owner
        self._kind, self._path, self._args, self._kwargs = kind, path, args, kwargs
        self._generation: _Generation | None = None
        self._begin: Callable[..., grpc.aio.Call]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        generation = self._owner.current()
        if generation is not self._generation:
            self._begin = getattr(generation.channel, self._kind)(self._path, *self._args, **self._kwargs)
            self._generation = generation
        call = self._begin(*args, **kwargs)
        generation.count(call)
        return call


def open_reloading(own: ClientTls, open_: Callable[[grpc.ChannelCredentials], grpc.aio.Channel]) -> ReloadingChannel:
    """A channel under the newest of `own` files. Raises StartupError where they are of no use."""
    files = CertificateFiles(role="client", cert=own.cert, key=own.key, ca=own.ca)
    return ReloadingChannel(files, open_)
