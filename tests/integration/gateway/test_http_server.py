"""The HTTP server itself, on a socket: clients that go away, that are slow, that send too much; its graceful end."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from onlinerlhf.core.errors import StartupError
from onlinerlhf.gateway.http.server import HttpFront
from unit.gateway.http.fake_desk import KEY, SETTINGS, FakeDesk, make_byte_tokenizer

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "policy", "messages": [{"role": "user", "content": "Hello"}]}
QUICK = replace(SETTINGS, answer_seconds=1.0, body_seconds=0.3, max_head_bytes=8_192, drain_seconds=1.0)


@pytest.fixture
async def desk(tmp_path: Path) -> FakeDesk:
    """Answers Hi."""
    return FakeDesk(tokenizer=make_byte_tokenizer(tmp_path))


@asynccontextmanager
async def serving(desk: FakeDesk) -> AsyncIterator[tuple[HttpFront, asyncio.Event, "asyncio.Task[None]"]]:
    """A front on a free port."""
    front, stop = HttpFront(desk, QUICK, listen="127.0.0.1:0", is_ready=lambda: True), asyncio.Event()
    task = asyncio.create_task(front.run(stop), name="front")
    await until(lambda: front.address, "the front to listen")
    try:
        yield front, stop, task
    finally:
        stop.set()
        await asyncio.wait((task,), timeout=10)


def client(front: HttpFront) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{front.address}", headers={"Authorization": f"Bearer {KEY}"}, timeout=5)


async def until(condition: Any, what: str) -> None:
    """Poll, for 5 s at most."""
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"waited 5 s for {what}")


@asynccontextmanager
async def connected(front: HttpFront) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection."""
    host, _, port = front.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(5):
            yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_tokens_arrive_as_they_are_sampled(desk: FakeDesk) -> None:
    desk.goes_on.clear()
    async with (
        serving(desk) as (front, _, _),
        client(front) as http,
        http.stream("POST", CHAT, json=BODY | {"stream": True}) as response,
    ):
        lines = response.aiter_lines()
        seen = [json.loads((await anext(lines)).removeprefix("data: ")), await anext(lines)]
        seen.append(json.loads((await anext(lines)).removeprefix("data: ")))
        assert seen[2]["choices"][0]["delta"] == {"content": "H"}
        desk.goes_on.set()
        assert [line async for line in lines if line][-1] == "data: [DONE]"
    assert desk.outcomes == ["completed"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_ends_the_sampling(desk: FakeDesk, stream: bool) -> None:
    desk.goes_on.clear()
    async with serving(desk) as (front, _, _), connected(front) as (_, writer):
        body = json.dumps(BODY | {"stream": stream}).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await until(lambda: desk.calls, "the question")
        assert desk.outcomes == []
        writer.transport.abort()
        await until(lambda: desk.outcomes, "the account to be settled")
        assert desk.outcomes == ["cancelled"]
        assert desk.calls[0].is_cancelled


async def test_a_client_that_does_not_read_is_not_waited_for_without_end(desk: FakeDesk) -> None:
    desk.answer = [(0, "x" * 4_000_000)] * 64
    async with serving(desk) as (front, _, _), connected(front) as (_, writer):
        body = json.dumps(BODY | {"stream": True, "max_tokens": 64}).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await until(lambda: desk.outcomes, "the account to be settled")
        assert desk.outcomes == ["cancelled"]
        writer.transport.abort()


@pytest.mark.parametrize("beginning", [b"", b"POST /v1/models HTTP/1.1\r\nHost: "])
async def test_a_head_that_does_not_come_is_not_waited_for_for_long(desk: FakeDesk, beginning: bytes) -> None:
    async with serving(desk) as (front, _, _), connected(front) as (reader, writer):
        writer.write(beginning)
        assert await reader.read() == b""


async def test_a_connection_is_kept_longer_than_a_head_may_take(desk: FakeDesk) -> None:
    async with serving(desk) as (front, _, _), connected(front) as (reader, writer):
        for _ in range(2):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: g\r\n\r\n")
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(15) == b'{"status":"ok"}'
            await asyncio.sleep(0.5)


@pytest.mark.parametrize("headers", [b"a: " + b"x" * 20_000, b"\r\n".join(b"h%d: x" % n for n in range(10_000))])
async def test_too_much_of_a_head_is_refused(desk: FakeDesk, headers: bytes) -> None:
    async with serving(desk) as (front, _, _):
        async with connected(front) as (reader, writer):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: g\r\n" + headers + b"\r\n\r\n")
            # How much of it the server reads at once decides who refuses it.
            assert int((await reader.readline()).split()[1]) in (400, 431)
        async with client(front) as http:
            assert (await http.get("/healthz")).status_code == 200


async def test_at_the_end_what_is_in_flight_is_finished(desk: FakeDesk) -> None:
    desk.goes_on.clear()
    async with serving(desk) as (front, stop, task), client(front) as http:
        asking = asyncio.create_task(http.post(CHAT, json=BODY), name="ask")
        await until(lambda: desk.calls, "the question")
        stop.set()
        await asyncio.sleep(0.2)
        assert not task.done()
        desk.goes_on.set()
        assert (await asking).json()["choices"][0]["message"]["content"] == "Hi"
        async with asyncio.timeout(5):
            await task
        with pytest.raises(httpx.ConnectError):
            await http.get("/healthz")


async def test_at_the_end_what_takes_too_long_is_broken_off(desk: FakeDesk) -> None:
    desk.goes_on.clear()
    async with serving(desk) as (front, stop, task), client(front) as http:
        asking = asyncio.create_task(http.post(CHAT, json=BODY), name="ask")
        await until(lambda: desk.calls, "the question")
        stop.set()
        async with asyncio.timeout(5):
            await task
        with pytest.raises(httpx.HTTPError):
            (await asyncio.wait_for(asking, 5)).raise_for_status()
    assert desk.outcomes == ["cancelled"]


async def test_a_cancelled_front_lets_everything_go(desk: FakeDesk) -> None:
    desk.goes_on.clear()
    async with serving(desk) as (front, _, task), client(front) as http:
        asking = asyncio.create_task(http.post(CHAT, json=BODY), name="ask")
        await until(lambda: desk.calls, "the question")
        task.cancel()
        await asyncio.wait((task,), timeout=5)
        assert task.cancelled()
        await asyncio.wait_for(asyncio.gather(asking, return_exceptions=True), 5)
    assert desk.outcomes == ["cancelled"]


async def test_an_address_in_use_ends_the_start(desk: FakeDesk) -> None:
    async with serving(desk) as (front, _, _):
        second = HttpFront(desk, QUICK, listen=front.address, is_ready=lambda: True)
        with pytest.raises(StartupError, match="in use"):
            await second.run(asyncio.Event())
