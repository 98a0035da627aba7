"""One run along every path, right ones and wrong ones, with a canary in everything that a client sends or receives.

None may be found where it has no business: not in a log line, a metric, an error or its metadata, and in Redis only
where a text is kept on purpose.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from prometheus_client import generate_latest
from redis.asyncio import Redis

from integration.gateway.leaks import everything_logged, everything_stored
from integration.gateway.planted import (
    CORRECTION,
    IDEMPOTENCY,
    ORGANISATION,
    OTHER,
    PROMPT,
    RESPONSE,
    USER,
    Client,
    consent,
    submission,
)
from integration.streams.support import eventually
from onlinerlhf.gateway.access.callers import KeyClass, Limits, Scope
from onlinerlhf.gateway.admission.pool import Pool
from onlinerlhf.gateway.kept.answers import Answers
from onlinerlhf.gateway.kept.feedback import Feedback
from onlinerlhf.gateway.pii.scanner import PatternScanner
from onlinerlhf.gateway.requests.lane import UserLane
from onlinerlhf.models.tokenizer import PromptTokenizer
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.v1 import data_pb2, gateway_pb2

if TYPE_CHECKING:
    from integration.gateway.conftest import FakeRollout, Gateway, MakeKey, StartGateway

pytestmark = pytest.mark.timeout(120)

CANARY = re.compile(r"zanzibar|z\\u0061nzibar", re.IGNORECASE)
TEXT_STORES = ("prompt", "answer", "stream", "feedback")
"""First words of the keys that keep texts on purpose."""


async def right(client: Client) -> str:
    """What works; the id of an answer."""
    answer = await client.answer(consent=consent(), idempotency_key=IDEMPOTENCY, stop=[OTHER], use_case=OTHER)
    await client.answer()
    await client.submit(text=f"{PROMPT} of another kind".encode(), idempotency_key=f"{IDEMPOTENCY}-2")
    turns = [gateway_pb2.Message(role=gateway_pb2.ROLE_SYSTEM, text=PROMPT.encode())]
    turns.append(gateway_pb2.Message(role=gateway_pb2.ROLE_USER, text=f"{PROMPT} in turns".encode()))
    await client.submit(text=b"", messages=turns, idempotency_key=f"{IDEMPOTENCY}-3")
    # Not learned from: a duplicate, and personal data.
    await client.submit(idempotency_key=f"{IDEMPOTENCY}-4")
    await client.submit(text=f"{PROMPT} zanzibar@example.com".encode(), idempotency_key=f"{IDEMPOTENCY}-5")
    return answer


async def judged(client: Client, answer: str) -> None:
    """Right and wrong feedback."""
    key = {"idempotency_key": IDEMPOTENCY}
    better = gateway_pb2.Correction(sample_id=answer, text=CORRECTION.encode())
    await client.judge(thumb=gateway_pb2.Thumb(sample_id=answer, up=True), idempotency_key=f"{IDEMPOTENCY}-9")
    await client.judge(correction=better, **key)
    score = gateway_pb2.Score(sample_id=answer, value=0.5)
    await client.refused(client.judge(score=score, **key), "FAILED_PRECONDITION")
    await client.refused(client.judge(thumb=gateway_pb2.Thumb(sample_id=OTHER), **key), "NOT_FOUND")
    await client.refused(client.judge(ranking=gateway_pb2.Ranking(sample_ids=[OTHER] * 2), **key), "INVALID_ARGUMENT")
    await client.refused(client.judge(**key), "INVALID_ARGUMENT")
    broken = gateway_pb2.Correction(sample_id=answer, text=CORRECTION.encode() + b"\xff")
    await client.refused(client.judge(correction=broken, **key), "INVALID_ARGUMENT")
    long = gateway_pb2.Correction(sample_id=answer, text=CORRECTION.encode() * 100_000)
    await client.refused(client.judge(correction=long, **key), "INVALID_ARGUMENT")


async def refusals(client: Client, make_key: "MakeKey") -> None:
    """One of every kind."""
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("INVALID_ARGUMENT", {"text": b" "}),
        ("INVALID_ARGUMENT", {"text": PROMPT.encode() + b"\xff"}),
        ("INVALID_ARGUMENT", {"text": f"{PROMPT}\x00".encode()}),
        ("INVALID_ARGUMENT", {"text": PROMPT.encode() * 3_000}),
        ("INVALID_ARGUMENT", {"text": PROMPT.encode() * 400}),
        ("INVALID_ARGUMENT", {"user_id": f"{USER}\n"}),
        ("INVALID_ARGUMENT", {"idempotency_key": IDEMPOTENCY * 50}),
        ("INVALID_ARGUMENT", {"messages": [gateway_pb2.Message(role=gateway_pb2.ROLE_USER, text=b"x")]}),
        ("FAILED_PRECONDITION", {"text": f"{PROMPT} again".encode()}),
        ("FAILED_PRECONDITION", {"consent": None, "idempotency_key": "a"}),
        ("FAILED_PRECONDITION", {"consent": consent(notice_version=OTHER), "idempotency_key": "b"}),
        ("FAILED_PRECONDITION", {"consent": consent(shown_at_seconds=1.0), "idempotency_key": "c"}),
        ("FAILED_PRECONDITION", {"consent": consent(shown_at_seconds=float("nan")), "idempotency_key": "d"}),
    ]
    for code, fields in wrong:
        await client.refused(client.submit(**fields), code)
    for fields in ({"max_tokens": 2**31}, {"temperature": float("nan")}, {"stop": [OTHER] * 5}, {"seed": 2**63}):
        await client.refused(client.answer(**fields), "INVALID_ARGUMENT")
    await client.refused(client.submit(OTHER), "UNAUTHENTICATED")
    await client.refused(client.submit(await make_key(Scope.FEEDBACK)), "PERMISSION_DENIED")
    production = await make_key(key_class=KeyClass.PRODUCTION)
    await client.refused(client.submit(production), "FAILED_PRECONDITION")
    limited = await make_key(limits=Limits(requests_per_minute=1))
    await client.answer(limited)
    await client.refused(client.answer(limited), "RESOURCE_EXHAUSTED")
    sample = gateway_pb2.GetSampleRequest(sample_id=OTHER)
    await client.refused(client.gateway.GetSample(sample, metadata=client.metadata(), timeout=5), "NOT_FOUND")
    raw: Any = client.channel.unary_unary("/onlinerlhf.v1.GatewayService/SubmitPrompt")
    await client.refused(raw(f"\x0a{PROMPT}".encode(), metadata=client.metadata(), timeout=5), "INVALID_ARGUMENT")
    unknown: Any = client.channel.unary_unary(f"/onlinerlhf.v1.GatewayService/{OTHER}")
    await client.refused(unknown(PROMPT.encode(), metadata=client.metadata(), timeout=5), "UNIMPLEMENTED")
    await refused_in_a_stream(client)


async def refused_in_a_stream(client: Client) -> None:
    async def prompts() -> AsyncIterator[gateway_pb2.SubmitPromptRequest]:
        yield submission(text=f"{PROMPT}\x00".encode())
        yield submission(consent=None, idempotency_key="e")

    async for reply in client.gateway.SubmitPrompts(prompts(), metadata=client.metadata(), timeout=10):
        assert reply.HasField("refusal")
        client.told += [reply.refusal.reason, reply.refusal.message]


async def over_http(client: Client) -> None:
    """The same by the other way in."""
    chat = "/v1/chat/completions"
    asked: dict[str, Any] = {"model": "policy", "user": USER, "messages": [{"role": "user", "content": PROMPT}]}
    proof = {"notice_version": "1", "shown_at": time.time() - 60}
    reply = await client.post(chat, 200, {**asked, "consent": proof}, **{"idempotency-key": f"{IDEMPOTENCY}-http"})
    sample_id = reply.json()["choices"][0]["sample_id"]
    await client.post(chat, 200, {**asked, "stream": True})
    await client.post("/v1/completions", 200, {"model": "policy", "prompt": PROMPT, "user": USER, "stop": OTHER})
    await client.post("/v1/feedback", 200, {"kind": "correction", "sample_id": sample_id, "text": CORRECTION})
    await client.post("/v1/feedback", 404, {"kind": "thumb", "sample_id": OTHER, "up": True})
    await client.post(chat, 400, PROMPT.encode())
    await client.post(chat, 400, b'{"model": "' + PROMPT.encode() + b"\xff")
    # A name that could be a parameter is told to whoever sent it, and nobody else.
    await client.post(chat, 400, {**asked, PROMPT: OTHER})
    await client.post(chat, 400, {**asked, "temperature": PROMPT})
    await client.post(chat, 400, {**asked, "messages": [{"role": OTHER, "content": PROMPT}]})
    await client.post(chat, 400, {**asked, "messages": [{"role": "user", "content": f"{PROMPT}\x00"}]})
    await client.post(chat, 404, {**asked, "model": OTHER})
    await client.post(chat, 401, asked, authorization=f"Bearer {OTHER}")
    await client.post(f"/{OTHER}?{OTHER}={OTHER}", 404, asked)
    await client.post(chat, 431, asked, **{OTHER: OTHER * 10_000})


async def rights(client: Client, admin: str) -> None:
    """Withdrawal, export and erasure, by whoever may and whoever may not."""
    withdrawal = gateway_pb2.WithdrawConsentRequest(user_id=USER)
    await client.gateway.WithdrawConsent(withdrawal, metadata=client.metadata(), timeout=10)
    await client.refused(client.submit(idempotency_key="f"), "FAILED_PRECONDITION")
    erasure = data_pb2.EraseUserRequest(organisation=ORGANISATION, user_id=USER)
    await client.refused(client.data.EraseUser(erasure, metadata=client.metadata(), timeout=10), "PERMISSION_DENIED")
    asked = data_pb2.ExportUserRequest(organisation=ORGANISATION, user_id=USER)
    exported = [row.json async for row in client.data.ExportUser(asked, metadata=client.metadata(admin), timeout=10)]
    assert PROMPT in "".join(exported) and USER not in "".join(exported)
    await client.data.EraseUser(erasure, metadata=client.metadata(admin), timeout=20)
    verify = data_pb2.VerifyErasureRequest(organisation=ORGANISATION, user_id=USER)
    assert (await client.data.VerifyErasure(verify, metadata=client.metadata(admin), timeout=20)).clean


async def broken(client: Client, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors nobody expects, with the canary in their messages."""
    kinds: list[type[Exception]] = [ValueError, KeyError, RuntimeError, TypeError, AttributeError, OSError]
    inner = [(PromptTokenizer, "encode_prompt"), (Feedback, "_clean_text"), (UserLane, "start")]
    inner += [(Pool, "admit"), (PatternScanner, "scan"), (Answers, "keep")]
    better = gateway_pb2.Correction(sample_id=answer, text=CORRECTION.encode())
    asked = {"model": "policy", "user": USER, "messages": [{"role": "user", "content": PROMPT}]}
    for owner, name in inner:
        for number, kind in enumerate(kinds):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, raising(kind))
                fresh: dict[str, Any] = {
                    "text": f"{PROMPT} {name} {number}".encode(),
                    "idempotency_key": f"{name}-{number}",
                }
                calls: list[Awaitable[Any]] = [
                    client.submit(**fresh),
                    client.answer(text=fresh["text"], consent=consent()),
                    client.judge(correction=better, idempotency_key=f"{name}-{number}"),
                ]
                for call in calls:
                    assert await client.tried(call) in ("OK", "INTERNAL", "UNAVAILABLE")
                reply = await client.http.post(
                    "/v1/chat/completions", json=asked, headers={"authorization": f"Bearer {client.key}"}
                )
                if reply.status_code != 200:
                    client.told += [reply.text, repr(reply.headers)]
                await asyncio.sleep(0.02)


def raising(kind: type[Exception]) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise kind(f"{PROMPT} {USER} {RESPONSE} {CORRECTION}")

    return fail


async def wrong_types(client: Client, redis: Redis, keys: RunKeys) -> None:
    """Keys of Redis that are not what they should be."""
    for number, key in enumerate((keys.dedup, keys.blocked, keys.prompts_by_age, keys.ledger_owners)):
        await redis.rename(key, "aside") if await redis.exists(key) else None
        await redis.set(key, "of another type")
        with_one: dict[str, Any] = {
            "text": f"{PROMPT} broken {number}".encode(),
            "idempotency_key": f"{IDEMPOTENCY}-broken-{number}",
        }
        for call in (client.submit(**with_one), client.answer(consent=consent())):
            await client.tried(call)
        await asyncio.sleep(0.05)
        await redis.delete(key)
        await redis.rename("aside", key) if await redis.exists("aside") else None


def looked_through(found: dict[str, bytes], gateway_key: str) -> None:
    """Whatever is in Redis is where it belongs."""
    for name, value in found.items():
        area = re.sub(r"^onlinerlhf:\{[^}]*\}:", "", name).split(":")[0]
        assert USER not in name and USER.encode() not in value, name
        assert gateway_key not in name and gateway_key.encode() not in value, name
        assert IDEMPOTENCY.encode() not in value and IDEMPOTENCY not in name, name
        assert OTHER not in name and OTHER.encode() not in value, name
        if ORGANISATION.encode() in value or ORGANISATION in name:
            assert area == "api_keys", name
        if PROMPT.encode() in value or RESPONSE.encode() in value or CORRECTION.encode() in value:
            assert area in TEXT_STORES, name
    assert any(PROMPT.encode() in value for value in found.values())
    assert any(RESPONSE.encode() in value for value in found.values())
    assert any(CORRECTION.encode() in value for value in found.values())


async def test_nothing_that_clients_send_or_receive_is_found_where_it_has_no_business(
    start_gateway: "StartGateway",
    make_key: "MakeKey",
    rollout: "FakeRollout",
    client: Redis,
    keys: RunKeys,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    rollout.texts = ("zanzibar ", "response")
    key = await make_key(organisation=ORGANISATION)
    admin = await make_key(Scope.ADMIN, organisation=ORGANISATION)
    with everything_logged() as lines:
        gateway: Gateway = await start_gateway(admit_wait_seconds=1.0)
        base = f"http://{gateway.http}"
        async with (
            grpc.aio.insecure_channel(gateway.target) as channel,
            httpx.AsyncClient(base_url=base, timeout=10) as http,
        ):
            user = Client(channel, http, key)
            answer = await right(user)
            await eventually(lambda: kept(client, keys, answer))
            await judged(user, answer)
            await refusals(user, make_key)
            await over_http(user)
            looked_through(await everything_stored(client), key)
            await broken(user, answer, monkeypatch)
            await wrong_types(user, client, keys)
            await rights(user, admin)
        await gateway.stop()
    captured = capfd.readouterr()
    exposed = generate_latest().decode()
    assert lines.getvalue().count("call failed") > 10 and lines.getvalue().count("decision") > 20
    for text in (lines.getvalue(), captured.err, captured.out, exposed, "\n".join(user.told)):
        found = CANARY.search(text)
        assert found is None, text[max(found.start() - 300, 0) : found.end() + 100]
        assert key not in text and admin not in text


async def kept(client: Redis, keys: RunKeys, answer: str) -> bool:
    return bool(await client.exists(keys.key("answer", answer)))
