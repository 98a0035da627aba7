import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from redis.asyncio import Redis

from integration.learner.learning import RunningLearner, Source, learner_config, learning
from onlinerlhf.core.errors import Unavailable
from onlinerlhf.core.samples import Stage
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.worker import CONSUMER_NAME
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.redis import Patience
from onlinerlhf.runtime.streams import Consumer, Streams


@pytest.fixture
def source(client: Redis, keys: RunKeys) -> Source:
    return Source(client, keys)


@pytest.fixture
def fail_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception, int], None]:
    """Makes the first so many PPO steps raise."""

    def fail(error: Exception, count: int) -> None:
        step = PPO.step
        failed: list[bool] = []

        def step_or_fail(ppo: PPO, rollouts: object) -> object:
            if len(failed) < count:
                failed.append(True)
                raise error
            return step(ppo, rollouts)  # type: ignore[arg-type]

        monkeypatch.setattr(PPO, "step", step_or_fail)

    return fail


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory"), IndexError("index out of range")])
async def test_a_batch_that_no_step_can_take_is_buried_and_learning_goes_on(
    client: Redis,
    keys: RunKeys,
    source: Source,
    ledger: Ledger,
    streams: Streams,
    tmp_path: Path,
    fail_steps: Callable[[Exception, int], None],
    error: Exception,
) -> None:
    fail_steps(error, 3)
    await source.put_scored([f"bad{number}.0" for number in range(4)])
    async with learning(client, keys, learner_config(tmp_path, lease_seconds=0.3)) as learner:
        await learner.until(lambda: "training" in learner.status.errors)
        while (await ledger.counts()).dropped == {}:  # noqa: ASYNC110 - bounded by the test's time limit
            await asyncio.sleep(0.05)
        await source.put_scored([f"good{number}.0" for number in range(4)])
        await learner.until(lambda: learner.status.checkpoint_step == 1)
        assert learner.health.ready()
    assert (await ledger.counts()).trained == 4
    letters = await streams.dead_letters(Stage.SCORED, 10)
    assert [letter.error for letter in letters] == [type(error).__name__] * 4


async def test_restarts_of_the_learner_do_not_count_as_failures_of_the_samples_it_held(
    client: Redis,
    keys: RunKeys,
    source: Source,
    ledger: Ledger,
    tmp_path: Path,
    fail_steps: Callable[[Exception, int], None],
) -> None:
    await source.put_scored([f"p{number}.0" for number in range(4)])
    for _ in range(3):
        patience = Patience(Health("learner"))
        async with Consumer(client, keys, Stage.SCORED, name=CONSUMER_NAME, patience=patience) as consumer:
            attempts = [delivery.attempt for delivery in await consumer.read(max_count=4, block_seconds=0)]
    assert attempts == [3] * 4
    fail_steps(RuntimeError("once"), 1)
    async with learning(client, keys, learner_config(tmp_path, lease_seconds=0.3)) as learner:
        await learner.until(lambda: learner.status.checkpoint_step == 1)
    assert (await ledger.counts()).trained == 4


async def test_a_device_that_is_gone_is_held_against_no_sample(
    client: Redis,
    keys: RunKeys,
    source: Source,
    ledger: Ledger,
    tmp_path: Path,
    fail_steps: Callable[[Exception, int], None],
) -> None:
    fail_steps(torch.AcceleratorError("the device is gone"), 10)
    await source.put_scored([f"p{number}.0" for number in range(4)])
    learner = RunningLearner(client, keys, learner_config(tmp_path))
    async with asyncio.timeout(10):
        with pytest.raises(torch.AcceleratorError):
            await learner.worker.run(learner.stop)
    assert set((await ledger.states()).values()) == {"scored"}


async def test_whoever_awaits_a_checkpoint_is_told_when_the_learner_fails(
    client: Redis, keys: RunKeys, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = RunningLearner(client, keys, learner_config(tmp_path))
    requests: list[asyncio.Task[object]] = []

    async def ask_and_fail(*_: object) -> int:
        assert learner.worker.saver is not None
        requests.append(asyncio.create_task(learner.checkpoint(), name="request"))
        await asyncio.sleep(0)
        raise ConnectionAbortedError("Redis is broken")

    monkeypatch.setattr(learner.worker, "_take_version", ask_and_fail)
    async with asyncio.timeout(10):
        with pytest.raises(ConnectionAbortedError):
            await learner.worker.run(learner.stop)
        with pytest.raises(Unavailable, match="the learner has stopped"):
            await requests[0]
    assert learner.worker.saver is None
