"""The load: one process, several connections, many calls in flight. Bytes are ready-made, so it costs little itself."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import grpc
import psutil
from gateway_servers import Server

from onlinerlhf.v1 import gateway_pb2

SUBMIT_METHOD = "/onlinerlhf.v1.GatewayService/SubmitPrompt"
STREAM_METHOD = "/onlinerlhf.v1.GatewayService/SubmitPrompts"
CALL_SECONDS = 60.0
RETRY_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What some calls took."""

    num_calls: int
    seconds: float
    server_cpu_seconds: float
    client_cpu_seconds: float
    latencies: list[float]
    """Seconds of each call; none of streamed ones."""

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.num_calls / self.seconds

    @property
    def cpu_micros(self) -> float:
        """Of the server, a call."""
        return 1e6 * self.server_cpu_seconds / self.num_calls


class Load:
    """Calls one unary method of a server. Use as an async context."""

    def __init__(self, server: Server, method: str, *, api_key: str, num_channels: int = 4) -> None:
        self._server = server
        self._method = method
        self._metadata = (("authorization", f"Bearer {api_key}"),)
        self._num_channels = num_channels
        self._channels: list[grpc.aio.Channel] = []
        self._calls: list[grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = []
        self._stack = AsyncExitStack()
        self._me = psutil.Process()
        self.num_retries = 0

    async def __aenter__(self) -> "Load":
        options = [("grpc.use_local_subchannel_pool", 1)]
        for _ in range(self._num_channels):
            channel = grpc.aio.insecure_channel(self._server.target, options=options)
            self._stack.push_async_callback(channel.close)
            await asyncio.wait_for(channel.channel_ready(), CALL_SECONDS)
            self._channels.append(channel)
            self._calls.append(channel.unary_unary(self._method))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def round(self, bodies: Sequence[bytes], *, num_at_once: int) -> Round:
        """Each body once. A call that is refused ends the benchmark."""
        latencies: list[float] = []
        waiting = iter(bodies)
        server_before, client_before = self._server.cpu_seconds(), _cpu_seconds(self._me)
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(num_at_once):
                call = self._calls[number % len(self._calls)]
                group.create_task(self._work(call, waiting, latencies), name=f"load {number}")
        seconds = time.perf_counter() - started
        return Round(
            num_calls=len(bodies),
            seconds=seconds,
            server_cpu_seconds=self._server.cpu_seconds() - server_before,
            client_cpu_seconds=_cpu_seconds(self._me) - client_before,
            latencies=latencies,
        )

    async def streamed(self, bodies: Sequence[bytes], *, method: str, num_at_once: int) -> Round:
        """Each body once over one stream a connection. Refusals are replies: whoever calls this counts what came in."""
        waiting = iter(bodies)
        server_before, client_before = self._server.cpu_seconds(), _cpu_seconds(self._me)
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for channel in self._channels:
                opened: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
                stream = opened(metadata=self._metadata, timeout=CALL_SECONDS)
                room = asyncio.Semaphore(num_at_once // len(self._channels))
                group.create_task(_write(stream, waiting, room), name="write a stream")
                group.create_task(_read(stream, room), name="read a stream")
        return Round(
            num_calls=len(bodies),
            seconds=time.perf_counter() - started,
            server_cpu_seconds=self._server.cpu_seconds() - server_before,
            client_cpu_seconds=_cpu_seconds(self._me) - client_before,
            latencies=[],
        )

    async def _work(
        self,
        call: "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]",
        waiting: Iterator[bytes],
        latencies: list[float],
    ) -> None:
        for body in waiting:
            started = time.perf_counter()
            await self._reply(call, body)
            latencies.append(time.perf_counter() - started)

    async def _reply(self, call: "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]", body: bytes) -> bytes:
        """Tries again where the server asks for that: on a busy machine Redis may be silent for too long."""
        give_up_at = time.perf_counter() + CALL_SECONDS
        while True:
            try:
                return await call(body, metadata=self._metadata, timeout=CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or time.perf_counter() > give_up_at:
                    raise
            self.num_retries += 1
            await asyncio.sleep(RETRY_SECONDS)


def submission(text: str, *, number: int, num_users: int, tag: str) -> bytes:
    """A SubmitPromptRequest, serialised; numbers are one's own within a tag."""
    request = gateway_pb2.SubmitPromptRequest(
        user_id=f"user-{tag}-{number % num_users}",
        text=text.encode(),
        idempotency_key=f"prompt-{tag}-{number}",
        consent=gateway_pb2.Consent(notice_version="1", shown_at_seconds=time.time() - 60.0),
    )
    return request.SerializeToString()


async def _write(
    stream: "grpc.aio.StreamStreamCall[bytes, bytes]", waiting: Iterator[bytes], room: asyncio.Semaphore
) -> None:
    for body in waiting:
        await room.acquire()
        await stream.write(body)
    await stream.done_writing()


async def _read(stream: "grpc.aio.StreamStreamCall[bytes, bytes]", room: asyncio.Semaphore) -> None:
    async for _ in stream:
        room.release()


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
