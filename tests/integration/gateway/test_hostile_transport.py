"""Clients that misuse the connection rather than the words: too much, too slow, too short, too many, gone."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from integration.streams.support import eventually
from onlinerlhf.gateway.access.callers import Limits
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.v1 import gateway_pb2, gateway_pb2_grpc
from onlinerlhf_client import AsyncClient, Consent, LimitReached

if TYPE_CHECKING:
    from integration.gateway.conftest import FakeRollout, Gateway, MakeKey, StartGateway

SUBMIT = "/onlinerlhf.v1.GatewayService/SubmitPrompt"


def request(text: bytes = b"one", *, number: int = 0) -> gateway_pb2.SubmitPromptRequest:
    consent = gateway_pb2.Consent(notice_version="1", shown_at_seconds=time.time() - 60)
    return gateway_pb2.SubmitPromptRequest(user_id="ada", text=text, idempotency_key=f"k{number}", consent=consent)


def bearer(key: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {key}")]


async def heard(call: Any) -> tuple[list[Any], grpc.StatusCode]:
    """What came of a stream, and how it ended."""
    replies = []
    with suppress(grpc.aio.AioRpcError):
        async for reply in call:
            replies.append(reply)
    return replies, await call.code()


async def answers_within(gateway: "Gateway", seconds: float) -> None:
    """Somebody else, on a connection of their own."""
    async with gateway.client() as user:
        started = time.monotonic()
        assert (await user.answer("hello", user_id="zoe", timeout=10.0)).text == "Hi"
        assert time.monotonic() - started < seconds


@pytest.mark.parametrize(
    "metadata",
    [
        [(f"key-{number}", "x") for number in range(10_000)],
        [("traceparent", "x" * 1_000_000)],
        [("authorization", "Bearer " + "x" * 1_000_000)],
        [("anything-bin", b"\xff" * 1_000_000)],
    ],
    ids=["ten thousand keys", "a value of 1 MB", "a key of 1 MB", "1 MB of bytes"],
)
async def test_too_much_metadata_is_refused_and_nothing_else_is_touched(
    start_gateway: "StartGateway", metadata: list[tuple[str, Any]], client: Redis, keys: RunKeys
) -> None:
    gateway = await start_gateway()
    # Else this client would not even send it.
    async with grpc.aio.insecure_channel(gateway.target, options=[("grpc.max_metadata_size", 1 << 24)]) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        calls = stub.SubmitPrompt, stub.Generate
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _one(call, [*bearer(gateway.api_key), *metadata])
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await stub.SubmitPrompt(request(), metadata=bearer(gateway.api_key), timeout=5)).receipt.sample_id
    await answers_within(gateway, 2.0)
    assert (await Ledger(client, keys).counts()).admitted == 1


async def _one(call: Any, metadata: list[tuple[str, Any]]) -> None:
    if isinstance(call, grpc.aio.UnaryStreamMultiCallable):
        _ = [each async for each in call(gateway_pb2.GenerateRequest(user_id="a", text=b"b"), metadata=metadata)]
    else:
        await call(request(), metadata=metadata, timeout=5)


async def test_a_traceparent_that_is_none_is_neither_kept_nor_sent_on(
    start_gateway: "StartGateway", rollout: "FakeRollout", client: Redis, keys: RunKeys
) -> None:
    gateway = await start_gateway()
    async with grpc.aio.insecure_channel(gateway.target) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        consent = gateway_pb2.Consent(notice_version="1", shown_at_seconds=time.time() - 60)
        question = gateway_pb2.GenerateRequest(user_id="ada", text=b"one", consent=consent)
        metadata = [*bearer(gateway.api_key), ("traceparent", "xyzzy of anybody")]
        events = [event async for event in stub.Generate(question, metadata=metadata, timeout=5)]
    assert len(rollout.requests) == 1 and rollout.traceparents == [""]
    await eventually(lambda: _exists(client, keys.prompt(events[0].receipt.sample_id)))
    record: Any = await client.get(keys.prompt(events[0].receipt.sample_id))
    assert b"xyzzy" not in record


async def _exists(client: Redis, key: str) -> bool:
    return bool(await client.exists(key))


async def test_a_slow_stream_without_a_deadline_is_ended_and_its_replies_came(start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(max_call_seconds=1.5)

    async def slowly() -> AsyncIterator[gateway_pb2.SubmitPromptRequest]:
        for number in range(1_000):
            yield request(f"prompt {number}".encode(), number=number)
            await asyncio.sleep(0.4)

    started = time.monotonic()
    async with grpc.aio.insecure_channel(gateway.target) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        replies, code = await heard(stub.SubmitPrompts(slowly(), metadata=bearer(gateway.api_key)))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 1.4 < time.monotonic() - started < 4.0
    assert 3 <= len(replies) <= 5 and all(reply.HasField("receipt") for reply in replies)


async def test_a_message_that_trickles_in_byte_by_byte_delays_nobody(start_gateway: "StartGateway") -> None:
    gateway = await start_gateway()
    host, _, port = gateway.target.partition(":")
    async with AsyncExitStack() as stack:
        for _ in range(20):
            _, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
            # The preface, empty settings, and the beginning of a frame that never ends.
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]) + b"\x00")
            await writer.drain()
        await answers_within(gateway, 2.0)


async def test_calls_given_a_millisecond_leave_nothing_open(
    start_gateway: "StartGateway", make_key: "MakeKey", rollout: "FakeRollout", caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await start_gateway()
    key = await make_key(limits=Limits(max_concurrent=1))
    async with grpc.aio.insecure_channel(gateway.target) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        for _ in range(50):
            question = gateway_pb2.GenerateRequest(user_id="a", text=b"b")
            _, code = await heard(stub.Generate(question, metadata=bearer(key), timeout=0.001))
            # The last: while the one before is being cleared away.
            assert code.name in ("OK", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
    async with gateway.client(key) as user:
        await eventually(lambda: _answered(user), seconds=5)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def _answered(user: AsyncClient) -> bool:
    """False where the key's one place is still taken."""
    try:
        return (await user.answer("one", user_id="a", timeout=0.2)).text == "Hi"
    except LimitReached:
        return False


async def test_a_client_whose_connection_breaks_at_the_first_token_stops_the_sampling(
    start_gateway: "StartGateway", rollout: "FakeRollout", make_key: "MakeKey"
) -> None:
    gateway = await start_gateway()
    key = await make_key(limits=Limits(max_concurrent=1))
    rollout.goes_on.clear()
    channel = grpc.aio.insecure_channel(gateway.target)
    stub = gateway_pb2_grpc.GatewayServiceStub(channel)
    call = stub.Generate(gateway_pb2.GenerateRequest(user_id="a", text=b"b"), metadata=bearer(key))
    events = aiter(call)
    assert (await anext(events)).HasField("receipt") and (await anext(events)).token.text == "H"
    await channel.close()
    await asyncio.wait_for(rollout.cancelled.wait(), 5)
    rollout.goes_on.set()
    async with gateway.client(key) as user:
        await eventually(lambda: _answered(user), seconds=5)


async def test_a_message_above_the_bound_is_refused_and_the_connection_goes_on(start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(max_message_bytes=100_000)
    async with grpc.aio.insecure_channel(gateway.target) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        metadata = bearer(gateway.api_key)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.SubmitPrompt(request(b"x" * 100_000), metadata=metadata, timeout=5)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.SubmitPrompt(request(b"x" * 99_000), metadata=metadata, timeout=5)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (await stub.SubmitPrompt(request(), metadata=metadata, timeout=5)).receipt.sample_id


async def test_bytes_that_are_no_message_are_the_clients_fault_and_a_stream_keeps_its_replies(
    start_gateway: "StartGateway",
) -> None:
    gateway = await start_gateway()

    async def one_good() -> AsyncIterator[bytes]:
        yield request().SerializeToString()
        yield b"\xff"

    async with grpc.aio.insecure_channel(gateway.target) as channel:
        stream: Any = channel.stream_stream(f"{SUBMIT}s")
        single: Any = channel.unary_unary(SUBMIT)
        call = stream(one_good(), metadata=bearer(gateway.api_key), timeout=5)
        replies, code = await heard(call)
        with pytest.raises(grpc.aio.AioRpcError) as unary:
            await single(b"\x0a\x01\xff", metadata=bearer(gateway.api_key), timeout=5)
    assert len(replies) == 1 and gateway_pb2.SubmitPromptsReply.FromString(replies[0]).HasField("receipt")
    assert code is unary.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert ("onlinerlhf-reason", "malformed") in tuple(unary.value.trailing_metadata() or ())
    assert ("onlinerlhf-reason", "malformed") in tuple(await call.trailing_metadata() or ())


async def test_hundreds_of_idle_connections_delay_nobody(start_gateway: "StartGateway") -> None:
    gateway = await start_gateway()
    host, _, port = gateway.target.partition(":")
    async with AsyncExitStack() as stack:
        for _ in range(500):
            _, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
        for _ in range(100):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(gateway.target, options=options))
            channel.get_state(try_to_connect=True)
        await answers_within(gateway, 2.0)


SILENT = "import time; time.sleep(600)"
DYING = "import os; os._exit(3)"
HANGING = "import time; print('{\"ready\": true}', flush=True); time.sleep(600)"
FINDING = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    question = json.loads(line)
    found = [["person_name", 0, 5]] if question["text"].startswith("Xyzzy") else []
    print(json.dumps({"id": question["id"], "findings": found}), flush=True)
"""


def counted(verdict: str) -> float:
    return REGISTRY.get_sample_value("onlinerlhf_gateway_verdicts_total", {"verdict": verdict}) or 0.0


@pytest.mark.parametrize("program", [SILENT, DYING, HANGING], ids=["never ready", "dying", "hanging"])
async def test_where_the_engine_fails_prompts_are_answered_and_received_and_not_learned_from(
    start_gateway: "StartGateway", client: Redis, keys: RunKeys, program: str
) -> None:
    before = counted("screen_failed")
    gateway = await start_gateway(ner_command=(sys.executable, "-c", program), scan_seconds=0.3, admit_wait_seconds=10)
    async with gateway.client() as user:
        started = time.monotonic()
        answers = [user.answer(f"name {number}", user_id="ada", consent=Consent.shown_now("1")) for number in range(5)]
        assert [answer.text for answer in await asyncio.gather(*answers)] == ["Hi"] * 5
        assert time.monotonic() - started < 2.0
        assert (await user.submit("one", user_id="ada", consent=Consent.shown_now("1"), timeout=10.0)).sample_id

    async def all_failed() -> bool:
        return counted("screen_failed") == before + 6

    await eventually(all_failed, seconds=15)
    assert (await Ledger(client, keys).counts()).admitted == 0


async def test_an_engine_that_answers_keeps_out_what_it_finds(
    start_gateway: "StartGateway", client: Redis, keys: RunKeys
) -> None:
    gateway = await start_gateway(ner_command=(sys.executable, "-c", FINDING), scan_seconds=5.0)
    async with gateway.client() as user:
        named = await user.submit("Xyzzy lives here", user_id="ada", consent=Consent.shown_now("1"))
        clean = await user.submit("nobody lives here", user_id="ada", consent=Consent.shown_now("1"))
    assert named.sample_id != clean.sample_id
    assert set(await Ledger(client, keys).states()) == {clean.sample_id}
