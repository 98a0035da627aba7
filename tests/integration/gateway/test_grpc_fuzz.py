"""10,000 gRPC calls as a hostile client would make them, against a gateway process on a real Redis.

Whatever comes, every call ends with a status that says what was wrong with it: never INTERNAL, never UNKNOWN. The
gateway goes on answering, the ledger balances, and neither log nor metrics hold what was sent.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from integration.gateway.gateway_process import UNLIMITED, GatewayProcess, gateway_process
from integration.gateway.wire_fuzz import CANARY, Messages
from onlinerlhf.gateway.access.callers import KeyClass, Limits, Scope
from onlinerlhf.gateway.access.keys import KeyStore
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.v1 import data_pb2, gateway_pb2
from onlinerlhf_client import AsyncClient, Consent

if TYPE_CHECKING:
    from integration.gateway.conftest import FakeRollout, MakeKey

pytestmark = pytest.mark.timeout(240)

NUM_CALLS = 10_000
NUM_AT_ONCE = 64
CALL_SECONDS = 20.0
FAULTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}
RARE = {"EraseUser", "VerifyErasure", "WithdrawConsent"}
"""Each of these looks at every key of the run, or wipes out what the others need."""
METHODS = [
    (f"/{service.full_name}/{method.name}", method)
    for service in (
        gateway_pb2.DESCRIPTOR.services_by_name["GatewayService"],
        data_pb2.DESCRIPTOR.services_by_name["DataService"],
    )
    for method in service.methods
]


@dataclass
class Fuzz:
    """A hostile client."""

    channels: list[grpc.aio.Channel]
    good: list[str]
    bad: list[str | None]
    messages: Messages = field(default_factory=lambda: Messages(7319))
    codes: Counter[tuple[str, str]] = field(default_factory=Counter)
    told: set[str] = field(default_factory=set)
    """Every detail and trailing metadata of a refusal."""

    faults: list[str] = field(default_factory=list)
    num_cut_short: int = 0

    async def run(self, num_calls: int) -> None:
        numbers = iter(range(num_calls))
        async with asyncio.TaskGroup() as group:
            for _ in range(NUM_AT_ONCE):
                group.create_task(self._work(numbers))

    async def _work(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            await self._one(number)

    async def _one(self, number: int) -> None:
        draw = self.messages.random
        weights = [0.05 if method.name in RARE else 1.0 for _, method in METHODS]
        path, method = draw.choices(METHODS, weights)[0]
        most = draw.choice((3, 8)) if method.client_streaming else draw.choices((1, 0, 2), (0.96, 0.02, 0.02))[0]
        bodies = [self.messages.make(method.input_type) for _ in range(most)]
        timeout = draw.choices((CALL_SECONDS, 0.0005, 0.003, 0.02), (0.9, 0.03, 0.03, 0.04))[0]
        if not bodies:
            # The library itself never ends a call that half-closes without the one message it should bring.
            timeout = min(timeout, 0.1)
        cancel_after = draw.choice((0.0, 0.001, 0.01)) if draw.random() < 0.05 else None
        if draw.random() < 0.01:
            path = draw.choice((f"{path}s", "/onlinerlhf.v1.GatewayService/", "/x/y"))
        start: Any = self.channels[number % len(self.channels)].stream_stream(path)
        call = start(self._sent(bodies), timeout=timeout, metadata=self._metadata())
        if cancel_after is not None:
            asyncio.get_running_loop().call_later(cancel_after, call.cancel)
        await self._end(method.name, call)

    async def _sent(self, bodies: list[bytes]) -> AsyncIterator[bytes]:
        for body in bodies:
            yield body

    def _metadata(self) -> list[tuple[str, str | bytes]]:
        draw = self.messages.random
        key = draw.choice(self.good) if draw.random() < 0.85 else draw.choice(self.bad)
        metadata: list[tuple[str, str | bytes]] = [] if key is None else [("authorization", key)]
        if draw.random() < 0.1:
            odd = [f"00-{'1' * 32}-{'2' * 16}-01", CANARY, "", "x" * 2_000, f"00-{CANARY}", "00-" + "0" * 32]
            metadata.append(("traceparent", draw.choice(odd)))
        if draw.random() < 0.05:
            metadata.append((f"x-{CANARY}-bin", draw.randbytes(50)))
        return metadata

    async def _end(self, name: str, call: Any) -> None:
        with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            async for reply in call:
                self._remember(name, reply)
        code, details = await call.code(), await call.details() or ""
        if details == "Internal error from Core":
            # Of the client's own library, where a call ends while it begins to send.
            code = grpc.StatusCode.CANCELLED
            self.num_cut_short += 1
        self.codes[name, code.name] += 1
        if code in FAULTS:
            self.faults.append(f"{name} {code.name} {details}")
        self.told.add(details)
        self.told.update(f"{key}: {value!r}" for key, value in await call.trailing_metadata() or ())

    def _remember(self, name: str, reply: bytes) -> None:
        if name == "Generate":
            sample_id = gateway_pb2.GenerateResponse.FromString(reply).receipt.sample_id
            if sample_id:
                self.messages.sample_ids.append(sample_id)
        if name == "SubmitPrompts":
            refusal = gateway_pb2.SubmitPromptsReply.FromString(reply).refusal
            self.told.add(f"{refusal.reason} {refusal.message}")
            self.codes["SubmitPrompts reply", str(refusal.code)] += 1


async def hostile(channels: list[grpc.aio.Channel], client: Redis, keys: RunKeys, make_key: "MakeKey") -> Fuzz:
    """With keys of every sort."""
    store = KeyStore(client, keys)
    revoked, revoked_text = await store.create(
        "revoked", KeyClass.PLAYGROUND, "", frozenset({Scope.GENERATE, Scope.FEEDBACK}), None
    )
    await store.revoke(revoked.key_id)
    good = [
        await make_key(),
        await make_key(),
        *[await make_key(Scope.GENERATE, Scope.FEEDBACK, Scope.ADMIN)] * 2,
        await make_key(key_class=KeyClass.PRODUCTION),
        await make_key(organisation=CANARY),
    ]
    bad = [
        revoked_text,
        await make_key(Scope.FEEDBACK),
        await make_key(Scope.ADMIN, organisation="acme"),
        await make_key(limits=Limits(requests_per_minute=1)),
        "orlhf_pg_" + "0" * 50,
        CANARY,
        "x" * 4_000,
        "",
    ]
    words = [None, "Basic abc", "Bearer", *(f"Bearer {key}" for key in bad)]
    return Fuzz(channels=channels, good=[f"Bearer {key}" for key in good], bad=words)


async def test_ten_thousand_calls_of_a_hostile_client_never_break_it_and_leave_no_trace_of_what_they_said(
    tmp_path: Path,
    run_config: RunConfig,
    model_dir: Path,
    rollout: "FakeRollout",
    client: Redis,
    keys: RunKeys,
    make_key: "MakeKey",
) -> None:
    async with (
        gateway_process(
            tmp_path, run_config, model_dir=model_dir, rollout_target=rollout.target, **UNLIMITED
        ) as gateway,
        AsyncExitStack() as stack,
    ):
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(gateway.target, options=options) for _ in range(4)]
        for channel in channels:
            stack.push_async_callback(channel.close)
        fuzz = await hostile(channels, client, keys, make_key)
        await fuzz.run(NUM_CALLS)
        await answers_still(gateway, await make_key())
        written = gateway.output() + await gateway.exposition()
    check(fuzz, written)
    ledger = Ledger(client, keys)
    counts = await ledger.counts()
    assert counts.admitted > 100
    assert counts.imbalance == 0 and counts == await ledger.audit()


async def answers_still(gateway: GatewayProcess, key: str) -> None:
    """As quickly as ever, and what it is sent is learned from."""
    async with AsyncClient(gateway.target, api_key=key) as user:
        started = time.monotonic()
        assert (await user.answer("one", user_id="zoe")).text == "Hi"
        assert (await user.submit("two", user_id="zoe", consent=Consent.shown_now("1"))).sample_id
        assert time.monotonic() - started < 2.0


def check(fuzz: Fuzz, written: str) -> None:
    """Nothing was a fault of ours, much was right, and nothing was quoted."""
    counts: Counter[str] = Counter()
    for (name, code), num in fuzz.codes.items():
        if not name.endswith("reply"):
            counts[code] += num
    assert counts.total() == NUM_CALLS
    assert fuzz.faults == [] and fuzz.num_cut_short < NUM_CALLS / 30
    assert counts["OK"] > NUM_CALLS / 10 and counts["INVALID_ARGUMENT"] > NUM_CALLS / 10
    assert CANARY not in "".join(fuzz.told)
    assert CANARY not in written
    for key in fuzz.good:
        assert key.partition(" ")[2] not in written
    assert '"level": "ERROR"' not in written and "Traceback" not in written, written[-3000:]
    for family in text_string_to_metric_families(written[written.index("# HELP") :]):
        for sample in family.samples:
            assert sample.labels.get("code") not in {code.name for code in FAULTS}, sample
