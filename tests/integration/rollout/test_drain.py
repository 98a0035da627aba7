"""A rollout worker is told to stop: what it holds is finished or another worker's at once, whatever else goes wrong."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from integration.rollout.bench import bench
from integration.serving.support import running
from integration.streams.support import Admit, eventually, pending, put, read_until
from onlinerlhf.core.samples import Stage
from onlinerlhf.runtime import redis, wire
from onlinerlhf.runtime.channels import open_channel
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.consumer import RETURNED, Consumer
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.redis import Patience
from onlinerlhf.runtime.streams import Streams
from onlinerlhf.v1 import gateway_pb2, gateway_pb2_grpc
from prompts import a_prompt
from redis_servers import RedisServer, redis_binaries
from unit.rollout.test_rollout_updater import Fixture

WORKER = Path(__file__).with_name("drained_worker.py")


@asynccontextmanager
async def another(client: Redis, keys: RunKeys, patience: Patience, name: str = "rollout-1") -> AsyncIterator[Consumer]:
    """The worker that goes on."""
    async with Consumer(client, keys, Stage.PROMPTS, name=name, patience=patience, lease_seconds=1.0) as consumer:
        yield consumer


async def names(streams: Streams) -> list[str]:
    return sorted(info.name for info in await streams.consumers(Stage.PROMPTS))


async def test_work_longer_than_the_drain_is_another_workers_at_once_and_the_attempt_does_not_count(
    client: Redis, keys: RunKeys, patience: Patience, tmp_path: Path
) -> None:
    async with bench(client, keys, patience, tmp_path, drain_seconds=0.5, max_concurrent_samples=2) as it:
        await it.put("a.0", "b.0", "c.0")
        await it.asked(2)
        async with another(client, keys, patience) as other:
            started = time.monotonic()
            it.stop.set()
            # What waits for a slot is not waited for.
            [waiting] = await read_until(other, 1)
            assert waiting.sample_id == "c.0"
            assert time.monotonic() - started < 0.4
            sampled = await read_until(other, 2)
            assert time.monotonic() - started < 1.5  # the lease is of 30 s
            assert sorted(delivery.sample_id for delivery in sampled) == ["a.0", "b.0"]
            assert [delivery.attempt for delivery in (waiting, *sampled)] == [1, 1, 1]

            async def has_left() -> bool:
                return await names(it.streams) == [RETURNED, "rollout-1"]

            await eventually(has_left)


async def test_what_is_read_in_the_moment_of_the_stop_is_not_begun(
    client: Redis, keys: RunKeys, patience: Patience, tmp_path: Path
) -> None:
    async with bench(client, keys, patience, tmp_path) as it:

        async def is_reading() -> bool:
            return "rollout-0" in await names(it.streams)

        await eventually(is_reading)
        it.stop.set()
        await it.put("a.0")
        async with another(client, keys, patience) as other:
            [delivery] = await read_until(other, 1)
        assert delivery.attempt == 1
    assert it.sampler.asked == []


@pytest.mark.parametrize("holds", [True, False], ids=["with work in hand", "with nothing in hand"])
async def test_a_drain_while_redis_is_away_is_bounded_and_loses_nothing(
    holds: bool, new_redis_server: Callable[..., RedisServer], health: Health, tmp_path: Path
) -> None:
    server, keys = new_redis_server(), RunKeys("drained")
    run = RunConfig(id="drained", redis_url=SecretStr(server.url))
    async with redis.connect(run) as client:
        patience = Patience(health)
        async with bench(client, keys, patience, tmp_path, drain_seconds=1.0, lease_seconds=1.0) as it:
            if holds:
                await it.put("a.0", "b.0")
                await it.asked(2)
            server.kill()
            it.sampler.may_answer.set()
            await asyncio.sleep(0.3)
            started = time.monotonic()
            it.stop.set()
        assert time.monotonic() - started < 2.5
        server.start()
        async with another(client, keys, patience) as other:
            taken = await read_until(other, 2) if holds else []
        assert sorted(delivery.sample_id for delivery in taken) == (["a.0", "b.0"] if holds else [])
        assert (await Ledger(client, keys).counts()).imbalance == 0


async def start_worker(run: RunConfig, name: str, *, drain_seconds: float) -> asyncio.subprocess.Process:
    """A worker in a process of its own, whose samples never end; returns when it has begun with one."""
    url = run.redis_url.get_secret_value()
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(WORKER), url, run.id, name, str(drain_seconds), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    async with asyncio.timeout(20):
        assert await child.stdout.readline() == b"sampling\n"
    return child


async def put_prompt(client: Redis, keys: RunKeys, sample_id: str) -> None:
    await put(client, keys, sample_id, wire.dump_prompt(a_prompt(sample_id=sample_id)), stage=Stage.PROMPTS)


async def test_a_second_sigterm_changes_nothing_and_the_process_ends_with_0(
    client: Redis, keys: RunKeys, run_config: RunConfig, streams: Streams
) -> None:
    await put_prompt(client, keys, "a.0")
    child = await start_worker(run_config, "rollout-0", drain_seconds=1.0)
    started = time.monotonic()
    child.terminate()
    await asyncio.sleep(0.2)
    child.terminate()
    async with asyncio.timeout(10):
        assert await child.wait() == 0
    assert 0.6 < time.monotonic() - started < 4
    assert await pending(client, keys, Stage.PROMPTS, RETURNED) == 1
    assert await names(streams) == [RETURNED]


async def test_sigkill_in_the_middle_of_a_drain_costs_a_redelivery_and_nothing_else(
    client: Redis, keys: RunKeys, run_config: RunConfig, patience: Patience
) -> None:
    await put_prompt(client, keys, "a.0")
    child = await start_worker(run_config, "rollout-0", drain_seconds=30.0)
    child.terminate()
    await asyncio.sleep(0.3)
    child.kill()
    await child.wait()
    assert await pending(client, keys, Stage.PROMPTS, "rollout-0") == 1
    async with another(client, keys, patience) as other:
        [delivery] = await read_until(other, 1)
        assert (delivery.sample_id, delivery.attempt) == ("a.0", 2)
        assert await other.hand_over(delivery, b"x")
    assert await Ledger(client, keys).states() == {"a.0": "rollouts"}


@pytest.mark.parametrize("redis_binary", redis_binaries(), indirect=True)
async def test_consumers_that_hold_nothing_and_are_long_gone_are_forgotten_and_holders_never(
    admit: Admit, streams: Streams, client: Redis, keys: RunKeys, patience: Patience
) -> None:
    def pod(name: str, *, lease_seconds: float = 60.0) -> Consumer:
        return Consumer(client, keys, Stage.PROMPTS, name=name, patience=patience, lease_seconds=lease_seconds)

    await admit("a", "b", "c")
    await pod("holder").read(max_count=3, block_seconds=0)
    for number in range(30):
        await pod(f"replaced-{number}").read(max_count=1, block_seconds=0)
    rests = pod("rests")
    await rests.read(max_count=1, block_seconds=0)
    assert len(await names(streams)) == 32
    await asyncio.sleep(2.1)
    # By this reader's measure 20 leases are 2 s: all have been away for longer, and what one holds may be taken.
    new = pod("new", lease_seconds=0.1)
    assert len(await new.read(max_count=1, block_seconds=0)) == 1
    assert await names(streams) == ["holder", "new"]
    assert await pending(client, keys, Stage.PROMPTS, "holder") == 2
    await read_until(new, 2)
    await asyncio.sleep(0.05)
    await new.read(max_count=1, block_seconds=0)
    assert await names(streams) == ["new"]
    # One that only rested is known again when it reads.
    await admit("d")
    assert [delivery.sample_id for delivery in await rests.read(max_count=1, block_seconds=0)] == ["d"]
    assert await names(streams) == ["new", "rests"]


async def test_an_update_that_is_being_applied_is_finished_before_the_room_ends_and_so_are_its_samples(
    client: Redis, keys: RunKeys, patience: Patience, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates = Fixture(tmp_path / "staging")
    apply, begun, may_finish = updates.engine.apply, asyncio.Event(), asyncio.Event()

    async def slow_apply(path: Path, version: int) -> float:
        begun.set()
        await may_finish.wait()
        return await apply(path, version)

    monkeypatch.setattr(updates.engine, "apply", slow_apply)
    async with bench(client, keys, patience, tmp_path, drain_seconds=5.0) as it, asyncio.TaskGroup() as group:
        await it.put("a.0")
        await it.asked(1)
        updating = group.create_task(updates.updater.run(it.stop))
        await begun.wait()
        it.stop.set()
        await asyncio.sleep(0.1)
        assert not updating.done()
        may_finish.set()
        it.sampler.may_answer.set()
        await it.has(Stage.ROLLOUTS, 1)
    assert updates.engine.version == 1
    assert await names(it.streams) == []


async def test_answers_begun_before_a_drain_end_and_new_ones_go_to_another_worker() -> None:
    async with running() as drained, running() as other:
        target = f"ipv4:{drained.address},{other.address}"
        async with open_channel(target, healthy_service="users") as channel:
            stub = gateway_pb2_grpc.GatewayServiceStub(channel)

            def ask(what: str) -> Any:
                return stub.Generate(gateway_pb2.GenerateRequest(user_id=what), timeout=10)

            begun = []
            async with asyncio.timeout(5):
                while drained.servicer.num_generated < 3:
                    begun.append(ask("hang"))
                    assert (await begun[-1].read()).token.text == "one"
            drained.health.begin_drain()
            await asyncio.sleep(0.2)
            # Its server takes calls as before; it is not asked any more.
            for _ in range(20):
                assert (await ask("at once").read()).token.text == "one"
            assert drained.servicer.num_generated == 3
            drained.servicer.release.set()
            other.servicer.release.set()
            assert [(await call.read()).token.text for call in begun] == ["two"] * len(begun)


async def test_a_worker_that_has_no_version_yet_is_asked_by_no_user() -> None:
    async with running() as starting, running() as other:
        starting.health.set("weights", ok=False, reason="no policy version applied yet")
        async with open_channel(f"ipv4:{starting.address},{other.address}", healthy_service="users") as channel:
            generate = gateway_pb2_grpc.GatewayServiceStub(channel).Generate

            async def ask(count: int) -> None:
                for _ in range(count):
                    await generate(gateway_pb2.GenerateRequest(user_id="x"), timeout=10).read()

            await ask(10)
            assert (starting.servicer.num_generated, other.servicer.num_generated) == (0, 10)
            starting.health.set("weights", ok=True)
            async with asyncio.timeout(10):
                while starting.servicer.num_generated == 0:
                    await ask(2)
