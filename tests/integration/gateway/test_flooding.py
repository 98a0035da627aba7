"""A flood from some, and what others notice of it: a gateway process at work, watched by a user of their own."""

import asyncio
import time
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from redis.asyncio import Redis

from integration.gateway.gateway_process import UNLIMITED, GatewayProcess, gateway_process
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.v1 import gateway_pb2, gateway_pb2_grpc
from onlinerlhf_client import AsyncClient, Consent, InvalidInput
from pii.hostile import HOSTILE, hostile

if TYPE_CHECKING:
    from integration.gateway.conftest import FakeRollout, MakeKey
    from onlinerlhf.v1.gateway_pb2_grpc import GatewayServiceAsyncStub

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def gateway(
    tmp_path: Path, run_config: RunConfig, model_dir: Path, rollout: "FakeRollout"
) -> AsyncIterator[GatewayProcess]:
    # One token a byte: 20 kB are to be answered, and are to get as far as the scanner.
    settings = {"max_prompt_bytes": 80_000, "max_context_tokens": 80_000, "max_prompt_tokens": 80_000, **UNLIMITED}
    async with gateway_process(
        tmp_path, run_config, model_dir=model_dir, rollout_target=rollout.target, **settings
    ) as running:
        yield running


@asynccontextmanager
async def watched(gateway: GatewayProcess, key: str) -> AsyncIterator[list[float]]:
    """Latencies of a user who asks again and again."""
    latencies: list[float] = []

    async def ask() -> None:
        async with AsyncClient(gateway.target, api_key=key) as user:
            while True:
                started = time.monotonic()
                assert (await user.answer("hello", user_id="zoe", timeout=20.0)).text == "Hi"
                latencies.append(time.monotonic() - started)
                await asyncio.sleep(0.05)

    task = asyncio.create_task(ask())
    try:
        yield latencies
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("num_users", [1, 50])
async def test_one_prompt_ten_thousand_times_makes_one_sample_and_everybody_gets_a_receipt(
    gateway: GatewayProcess, make_key: "MakeKey", client: Redis, keys: RunKeys, num_users: int
) -> None:
    key = await make_key()
    consent = gateway_pb2.Consent(notice_version="1", shown_at_seconds=time.time() - 60)

    async def prompts(user: int) -> AsyncIterator[gateway_pb2.SubmitPromptRequest]:
        for number in range(10_000 // num_users):
            yield gateway_pb2.SubmitPromptRequest(
                user_id=f"user-{user}", text=b"The same to all.", idempotency_key=f"k{number}", consent=consent
            )

    async def flood(stub: "GatewayServiceAsyncStub", user: int) -> list[str]:
        call = stub.SubmitPrompts(prompts(user), metadata=[("authorization", f"Bearer {key}")], timeout=120)
        return [reply.receipt.sample_id async for reply in call]

    async with watched(gateway, await make_key()) as latencies, grpc.aio.insecure_channel(gateway.target) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        received = await asyncio.gather(*(flood(stub, user) for user in range(num_users)))
    sample_ids = [sample_id for each in received for sample_id in each]
    assert len(sample_ids) == 10_000 and all(sample_ids) and len(set(sample_ids)) == 10_000
    counts = await Ledger(client, keys).counts()
    assert (counts.admitted, counts.imbalance) == (1, 0)
    assert len(latencies) > 5 and max(latencies) < 5.0, max(latencies)


def is_text(text: str) -> bool:
    """Control characters and halves of characters never get as far as the scanner."""
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in set(text) - {"\n", "\t"})


async def test_twenty_thousand_hostile_characters_are_answered_and_hold_nobody_up(
    gateway: GatewayProcess, make_key: "MakeKey"
) -> None:
    async with (
        watched(gateway, await make_key()) as latencies,
        AsyncClient(gateway.target, api_key=await make_key()) as user,
    ):
        for name in HOSTILE:
            text, consent = hostile(name, 20_000), Consent.shown_now("1")
            if not is_text(text):
                with pytest.raises(InvalidInput):
                    await user.answer(text, user_id="ada", timeout=20.0)
                continue
            assert (await user.answer(text, user_id="ada", consent=consent, timeout=20.0)).text == "Hi"
            assert (await user.submit(text, user_id="bob", consent=consent, timeout=20.0)).sample_id
    assert len(latencies) > 5 and max(latencies) < 2.0, max(latencies)
