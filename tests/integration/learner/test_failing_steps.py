import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from redis.asyncio import Redis

from integration.learner.learning import RunningLearner, Source, learner_config, learning
from onlinerlhf.algorithms.batching import ScoredRollout, pad_batch
from onlinerlhf.core.errors import NonFiniteLoss, Unavailable
from onlinerlhf.core.samples import Stage
from onlinerlhf.core.weights import Line
from onlinerlhf.learner.lines import line_tensors
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.step_metrics import StepMetrics
from onlinerlhf.learner.worker import CONSUMER_NAME
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.redis import Patience
from onlinerlhf.runtime.streams import RETURNED, Consumer, Streams
from unit.learner.tiny import tiny_ppo


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


async def test_a_step_that_is_not_finite_is_skipped_and_its_samples_are_tried_again(
    client: Redis,
    keys: RunKeys,
    source: Source,
    ledger: Ledger,
    tmp_path: Path,
    fail_steps: Callable[[Exception, int], None],
) -> None:
    fail_steps(NonFiniteLoss("not finite at step 1: policy gradient"), 2)
    await source.put_scored([f"p{number}.0" for number in range(4)])
    async with learning(client, keys, learner_config(tmp_path, lease_seconds=0.3)) as learner:
        await learner.until(lambda: "training" in learner.status.errors)
        assert "non_finite_loss: not finite at step 1: policy gradient" in learner.status.last_error
        await learner.until(lambda: learner.status.checkpoint_step == 1)
        assert learner.status.counters["skipped_steps"] == learner.status.newest["skipped_steps"] == 2
        assert learner.health.ready()
        assert learner.status.last_error == ""
    assert (await ledger.counts()).trained == 4


async def test_after_three_steps_in_a_row_that_are_not_finite_the_learner_stays_at_its_last_good_checkpoint(
    client: Redis,
    keys: RunKeys,
    source: Source,
    ledger: Ledger,
    streams: Streams,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = learner_config(tmp_path, checkpoint_every=2, max_unsaved_steps=2, checkpoint_idle_seconds=1000)
    ppo = tiny_ppo()

    def with_too_high_a_rate(ppo: PPO, rollouts: Sequence[ScoredRollout]) -> StepMetrics:
        # Step 3 is fine too, but in no checkpoint yet; from then on the value network's weights overflow.
        monkeypatch.setattr(ppo.value_optimizer, "_peak", 1e38 if ppo.num_steps >= 3 else 1e-3)
        return PPO.learn(ppo, pad_batch(rollouts))

    monkeypatch.setattr(ppo, "step", partial(with_too_high_a_rate, ppo))
    await source.put_scored([f"p{number}.0" for number in range(26)])
    async with learning(client, keys, config, lambda: ppo) as learner:
        await learner.until(lambda: learner.status.phase == "stopped")
        # What it has, it serves on.
        assert (learner.status.step, learner.status.checkpoint_step) == (3, 2)
        assert learner.publisher.newest_version() == 4
        assert all(bool(tensor.isfinite().all()) for tensor in line_tensors(ppo, Line.EMA).values())
        assert learner.status.counters["skipped_steps"] == 3
        training = next(part for part in learner.health.components() if part.name == "training")
        assert not training.ok
        assert training.reason == learner.status.last_error
        stopped = "stopped at the checkpoint of step 2: 3 steps in a row were undone (not finite at step 4: "
        assert training.reason.startswith(stopped)
        advice = "; lower learning_rate and value_learning_rate, look at the last lines of steps.jsonl, and restart "
        assert training.reason.endswith(f"{advice}the learner")
        with pytest.raises(AssertionError):
            await learner.checkpoint()
        # Whoever comes next finds all of them at once: those of the unsaved step and of the undone ones, too.
        counts = await ledger.counts()
        assert (counts.trained, counts.pending[Stage.SCORED], counts.dropped) == (8, 18, {})
        assert {info.name for info in await streams.consumers(Stage.SCORED)} <= {RETURNED}
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == ["step-00000000", "step-00000002"]
    # Restarted with a better recipe.
    async with learning(client, keys, config) as learner:
        await learner.until(lambda: learner.status.step == 6)
        assert learner.health.ready()
    assert (await ledger.counts()).trained == 24


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

    monkeypatch.setattr("onlinerlhf.learner.offering.Offering.take_version", ask_and_fail)
    async with asyncio.timeout(10):
        with pytest.raises(ConnectionAbortedError):
            await learner.worker.run(learner.stop)
        with pytest.raises(Unavailable, match="the learner has stopped"):
            await requests[0]
    assert learner.worker.saver is None
