"""What the scaler reads of a run, from real Redis servers of two versions and over real gRPC."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from authority import Authority, SecretMount
from integration.scaler.answering import FakeWorker, learning, serving
from integration.streams.support import Admit, put
from onlinerlhf.core.errors import Unavailable
from onlinerlhf.core.samples import Stage
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.cordon import EMPTYING, cordon
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Patience
from onlinerlhf.runtime.streams import Consumer, Streams
from onlinerlhf.scaler.config import ScalerConfig
from onlinerlhf.scaler.observation import Pod, Worker
from onlinerlhf.scaler.run_state import MIN_RATE_SECONDS
from onlinerlhf.scaler.signals import Signals
from redis_servers import RedisServer, free_port, redis_binaries

pytestmark = pytest.mark.parametrize("redis_binary", redis_binaries(), indirect=True)


@dataclass(slots=True)
class Clock:
    """Moved by hand."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def reading(run: RunConfig, **settings: object) -> AsyncIterator[Signals]:
    """Signals of a scaler with these settings."""
    clock = settings.pop("clock", time.monotonic)
    assert callable(clock)
    signals = Signals(run, ScalerConfig.model_validate(settings), clock=clock)
    try:
        yield signals
    finally:
        await signals.close()


@pytest.fixture
def reader(client: Redis, keys: RunKeys, patience: Patience) -> Callable[[str], Consumer]:
    """A consumer of [prompts], by name."""
    return lambda name: Consumer(client, keys, Stage.PROMPTS, name=name, patience=patience, lease_seconds=30.0)


async def test_a_run_that_has_not_begun_has_no_work(run_config: RunConfig) -> None:
    async with reading(run_config, max_samples_ahead=512) as signals:
        found = await signals.pipeline()
        assert (found.num_waiting, found.num_in_flight, found.num_ahead, found.oldest_seconds) == (0, 0, 0, 0.0)
        assert (found.max_samples_ahead, found.learner_version, found.learner_samples_per_second) == (512, 0, None)
        assert await signals.workers([]) == ()


async def test_undelivered_entries_wait_and_delivered_ones_are_in_flight_until_they_are_done(
    run_config: RunConfig, streams: Streams, admit: Admit, reader: Callable[[str], Consumer]
) -> None:
    await admit("a", "b", "c", "d", "e")
    async with reading(run_config) as signals, reader("rollout-0") as worker:
        held = await worker.read(max_count=3, block_seconds=1)
        found = await signals.pipeline()
        assert (found.num_waiting, found.num_in_flight, found.backlog) == (2, 3, 5)
        await worker.hand_over(held[0], b"rollouts")
        found = await signals.pipeline()
        assert (found.num_waiting, found.num_in_flight, found.num_ahead) == (2, 2, 1)


async def test_what_was_given_back_waits_and_is_nobodys_work(
    run_config: RunConfig, streams: Streams, admit: Admit, reader: Callable[[str], Consumer]
) -> None:
    await admit("a", "b", "c")
    async with reading(run_config) as signals, reader("rollout-0") as worker:
        held = await worker.read(max_count=3, block_seconds=1)
        await worker.give_back(held[1:])
        found = await signals.pipeline()
        assert (found.num_waiting, found.num_in_flight) == (2, 1)
        (seen,) = await signals.workers([Pod(name="rollout-0", address="")])
        assert seen.num_in_flight == 1


async def test_the_pool_waits_too_and_rollouts_and_scores_are_ahead_of_the_learner(
    run_config: RunConfig, client: Redis, keys: RunKeys, streams: Streams, admit: Admit
) -> None:
    await client.hset(keys.ledger_counts, mapping={"admitted": 40, "pool": 40})
    await admit("a", "b")
    await admit("c", "d", "e", stage=Stage.ROLLOUTS)
    await admit("f", stage=Stage.SCORED)
    async with reading(run_config) as signals:
        found = await signals.pipeline()
    assert (found.num_waiting, found.num_ahead) == (42, 4)


async def test_the_oldest_entrys_age_is_by_redis_own_clock(
    run_config: RunConfig, client: Redis, keys: RunKeys, streams: Streams, admit: Admit, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, _ = await client.time()
    await client.xadd(keys.stream(Stage.PROMPTS), {"id": "a", "data": "x"}, id=f"{(seconds - 90) * 1000}-0")
    await put(client, keys, "b", b"y", stage=Stage.PROMPTS)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    async with reading(run_config) as signals:
        assert (await signals.pipeline()).oldest_seconds == pytest.approx(90, abs=3)


async def test_the_learner_tells_its_version_and_staleness(run_config: RunConfig) -> None:
    async with learning() as target, reading(run_config, learner_target=target) as signals:
        found = await signals.pipeline()
    assert (found.learner_version, found.staleness) == (7, 1.5)


async def test_a_learner_that_cannot_be_reached_is_unknown_and_no_error(run_config: RunConfig) -> None:
    async with reading(run_config, learner_target=f"127.0.0.1:{free_port()}") as signals:
        started = time.monotonic()
        found = await signals.pipeline()
        assert time.monotonic() - started < 4
    assert (found.learner_version, found.staleness) == (0, 0.0)


async def test_the_learners_rate_is_the_ledgers_difference(run_config: RunConfig, client: Redis, keys: RunKeys) -> None:
    clock = Clock()
    async with reading(run_config, clock=clock) as signals:
        await client.hset(keys.ledger_counts, mapping={"trained": 1000, "dropped:stale": 10})
        assert (await signals.pipeline()).learner_samples_per_second is None
        clock.now += MIN_RATE_SECONDS + 80
        await client.hset(keys.ledger_counts, mapping={"trained": 1380, "dropped:stale": 30})
        assert (await signals.pipeline()).learner_samples_per_second == 2.0
        clock.now += 5
        await client.delete(keys.ledger_counts)
        assert (await signals.pipeline()).learner_samples_per_second is None


async def test_workers_tell_version_and_users_and_redis_what_they_hold(
    run_config: RunConfig, streams: Streams, admit: Admit, reader: Callable[[str], Consumer]
) -> None:
    await admit("a", "b", "c")
    port = free_port()
    fakes = [FakeWorker(version=7, users=3), FakeWorker(version=6, users=0)]
    async with (
        serving(fakes, port=port) as (first, second),
        reading(run_config, rollout_port=port) as signals,
        reader("rollout-0") as worker,
    ):
        await worker.read(max_count=2, block_seconds=1)
        found = await signals.workers(
            [Pod(name="rollout-0", address=first, ready=True), Pod(name="rollout-1", address=second)]
        )
    assert found == (
        Worker(name="rollout-0", ready=True, num_in_flight=2, num_user_requests=3, version=7, keeps_users_away=False),
        Worker(name="rollout-1", ready=False, version=6, keeps_users_away=False),
    )


async def test_workers_that_do_not_answer_are_unknown_within_two_seconds_together_and_keep_what_redis_knows(
    run_config: RunConfig, streams: Streams, admit: Admit, reader: Callable[[str], Consumer]
) -> None:
    await admit("a", "b")
    port = free_port()
    async with (
        serving([FakeWorker(version=7, users=1)], port=port) as (there,),
        reading(run_config, rollout_port=port) as signals,
        reader("rollout-9") as worker,
    ):
        await worker.read(max_count=2, block_seconds=1)
        gone = [Pod(name=f"rollout-{number}", address=f"127.0.0.{number + 50}", ready=True) for number in range(10)]
        started = time.monotonic()
        *silent, last = await signals.workers([*gone, Pod(name="there", address=there, ready=True)])
        assert time.monotonic() - started < 5
    assert [worker.answered for worker in silent] == [False] * 10
    assert [worker.num_in_flight for worker in silent] == [0] * 9 + [2]
    assert (last.answered, last.version) == (True, 7)


async def test_a_cordon_is_seen_with_what_the_worker_holds_and_lasts_for_some_polls(
    run_config: RunConfig,
    client: Redis,
    keys: RunKeys,
    streams: Streams,
    admit: Admit,
    reader: Callable[[str], Consumer],
) -> None:
    await admit("a", "b")
    pods = [Pod(name="rollout-0", address=""), Pod(name="rollout-1", address="")]
    async with reading(run_config, poll_seconds=20.0) as signals, reader("rollout-0") as worker:
        await worker.read(max_count=1, block_seconds=1)
        await signals.cordon(["rollout-0"], lift=["rollout-1"])
        assert [(each.cordoned, each.num_in_flight) for each in await signals.workers(pods)] == [(True, 1), (False, 0)]
        assert await worker.read(max_count=1, block_seconds=0) == []
        assert 55_000 < await client.pttl(keys.cordoned) <= 60_000
        await signals.cordon([], lift=["rollout-0"])
        assert not any(each.cordoned for each in await signals.workers(pods))
        assert len(await worker.read(max_count=1, block_seconds=1)) == 1


async def test_a_cordon_that_may_lapse_before_the_turn_renews_it_does_not_count(
    run_config: RunConfig, client: Redis, keys: RunKeys
) -> None:
    async with reading(run_config) as signals:
        await cordon(client, keys, ["rollout-0"], seconds=60)
        await cordon(client, keys, ["rollout-1"], seconds=5)
        await client.persist(keys.cordoned)
        found = await signals.workers([Pod(name=f"rollout-{number}", address="") for number in range(2)])
        assert [each.cordoned for each in found] == [True, False]


async def test_a_cordoned_worker_is_emptied_when_it_says_itself_that_it_wants_no_users(
    run_config: RunConfig, streams: Streams
) -> None:
    port = free_port()
    fakes = [
        FakeWorker(version=7, users=0),
        FakeWorker(version=7, users=0, reason=EMPTYING),
        FakeWorker(version=0, users=0, reason="no policy version applied yet"),
        FakeWorker(version=7, users=1, reason=EMPTYING),
    ]
    async with serving(fakes, port=port) as addresses, reading(run_config, rollout_port=port) as signals:
        pods = [Pod(name=f"rollout-{number}", address=address) for number, address in enumerate(addresses)]
        await signals.cordon([pod.name for pod in pods], lift=[])
        assert [each.is_emptied for each in await signals.workers(pods)] == [False, True, True, False]


async def test_with_tls_pods_are_called_by_address_and_known_by_their_service(
    run_config: RunConfig, tmp_path: Path
) -> None:
    authority, mount = Authority(), SecretMount(tmp_path)
    mount.renew(authority, "scaler")
    cert, key = authority.issue("rollout")
    credentials = grpc.ssl_server_credentials([(key, cert)], authority.pem, require_client_auth=True)
    settings: dict[str, object] = {"tls_cert": mount.cert, "tls_key": mount.key, "tls_ca": mount.ca}
    port = free_port()
    fakes = [FakeWorker(version=version, users=0) for version in (1, 2, 3)]
    async with serving(fakes, port=port, credentials=credentials) as addresses:
        # No certificate names this address.
        pods = [Pod(name="rollout-2", address=addresses[2], ready=True)]
        async with reading(run_config, rollout_port=port, rollout_server_name="rollout", **settings) as signals:
            (known,) = await signals.workers(pods)
        async with reading(run_config, rollout_port=port, rollout_server_name="reward", **settings) as signals:
            (other,) = await signals.workers(pods)
    assert (known.answered, known.version) == (True, 3)
    assert not other.answered


async def test_a_pod_without_an_address_is_not_asked(run_config: RunConfig) -> None:
    async with reading(run_config) as signals:
        assert await signals.workers([Pod(name="new", address="")]) == (Worker(name="new", answered=False),)


async def test_connections_to_pods_that_are_gone_are_closed(run_config: RunConfig) -> None:
    port = free_port()
    fakes = [FakeWorker(version=1, users=0), FakeWorker(version=1, users=0)]
    async with serving(fakes, port=port) as (first, second), reading(run_config, rollout_port=port) as signals:
        await signals.workers([Pod(name="a", address=first), Pod(name="b", address=second)])
        await signals.workers([Pod(name="b", address=second)])
        assert list(signals._workers) == [f"{second}:{port}"]
        assert [fake.num_asked for fake in fakes] == [1, 2]


async def test_without_redis_the_signals_are_unavailable_and_come_back_with_it(
    run_config: RunConfig, new_redis_server: Callable[..., RedisServer]
) -> None:
    server = new_redis_server()
    run = run_config.model_copy(update={"redis_url": SecretStr(server.url)})
    async with reading(run) as signals:
        await signals.pipeline()
        server.kill()
        with pytest.raises(Unavailable, match="the run's backlog: Redis cannot be reached"):
            await signals.pipeline()
        with pytest.raises(Unavailable, match="cordons: Redis cannot be reached"):
            await signals.cordon(["rollout-0"], lift=[])
        with pytest.raises(Unavailable):
            await signals.workers([])
        server.start()
        assert (await signals.pipeline()).backlog == 0


async def test_a_redis_that_hangs_is_given_up_within_seconds(run_config: RunConfig) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            continue
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        run = run_config.model_copy(update={"redis_url": SecretStr(f"redis://127.0.0.1:{port}/0")})
        async with reading(run) as signals:
            with pytest.raises(Unavailable, match="Redis does not answer"):
                await signals.pipeline()
