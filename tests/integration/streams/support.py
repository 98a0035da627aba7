"""Helpers of the stream tests."""

import asyncio
import sys
from collections.abc import Awaitable, Callable

from redis.asyncio import Redis

from onlinerlhf.core.samples import Stage
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import LUA_TRANSITION
from onlinerlhf.runtime.redis import Script
from onlinerlhf.runtime.streams import Consumer, Delivery
from prompts import PROOF

MakeConsumer = Callable[..., Consumer]
Admit = Callable[..., Awaitable[None]]

_ADMIT = Script(
    LUA_TRANSITION
    + """
if ledger_admit(KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2], ARGV[4]) then
  redis.call('XADD', KEYS[4], '*', 'id', ARGV[1], 'data', ARGV[3])
end
return 1
"""
)

HOLDER = """
import asyncio, sys
from onlinerlhf.core.samples import Stage
from onlinerlhf.runtime import redis
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.streams import Consumer

async def main(url, run, name, lease):
    config = RunConfig(id=run, redis_url=url)
    client = redis.connect(config)
    consumer = Consumer(client, RunKeys(run), Stage.PROMPTS, name=name,
                        patience=redis.Patience(Health("child")), lease_seconds=float(lease))
    async with consumer:
        held = await consumer.read(max_count=100, block_seconds=5)
        print(len(held), flush=True)
        await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""
"""A process that reads and then hangs."""


async def put(
    client: Redis, keys: RunKeys, sample_id: str, payload: bytes, *, stage: Stage, proof: str = PROOF
) -> None:
    """A sample into a stage, as its producer would. May be repeated."""
    await _ADMIT.run(
        client,
        [keys.ledger_states, keys.ledger_counts, keys.ledger_owners, keys.stream(stage)],
        [sample_id, stage, payload, proof],
    )


def admitter(client: Redis, keys: RunKeys) -> Admit:
    """Puts samples with made-up payloads into a stage."""

    async def admit(*sample_ids: str, stage: Stage = Stage.PROMPTS) -> None:
        for sample_id in sample_ids:
            await put(client, keys, sample_id, f"payload of {sample_id}".encode(), stage=stage)

    return admit


async def hold_in_child(url: str, keys: RunKeys, *, name: str, lease_seconds: float) -> asyncio.subprocess.Process:
    """Start the process, and return when it holds what there was."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, url, keys.run, name, str(lease_seconds), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    async with asyncio.timeout(20):
        await child.stdout.readline()
    return child


async def eventually(check: Callable[[], Awaitable[bool]], *, seconds: float = 10.0) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(seconds):
        while not await check():  # noqa: ASYNC110 - what is waited for is in Redis
            await asyncio.sleep(0.02)


async def read_until(consumer: Consumer, count: int, *, seconds: float = 10.0) -> list[Delivery]:
    """Read until so many have come."""
    got: list[Delivery] = []
    async with asyncio.timeout(seconds):
        while len(got) < count:
            got += await consumer.read(max_count=count - len(got), block_seconds=0.1)
    return got


async def pending(client: Redis, keys: RunKeys, stage: Stage, name: str) -> int:
    """Entries that Redis has down as this consumer's."""
    return len(await client.xpending_range(keys.stream(stage), keys.group, "-", "+", 1000, name))
