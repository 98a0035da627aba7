import json
import shutil
from collections.abc import Collection
from pathlib import Path

import pytest
from redis.asyncio import Redis
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from integration.learner.learning import Source, learner_config, learning, scored_group
from onlinerlhf.core.samples import Stage
from onlinerlhf.learner.checkpoint import CheckpointStore
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.runtime import wire
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.redis import command
from onlinerlhf.runtime.streams import Streams
from unit.learner.tiny import tiny_ppo


@pytest.fixture
def source(client: Redis, keys: RunKeys) -> Source:
    return Source(client, keys)


def _checkpointed(output_dir: Path) -> list[str]:
    """Sample ids of all checkpoints, in order of the steps."""
    states = sorted((output_dir / "checkpoints").glob("step-*/state.json"))
    return [sample["sample_id"] for state in states for sample in json.loads(state.read_text())["samples"]]


def _steps(output_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output_dir / "steps.jsonl").read_text().splitlines()]


def _on_tensorboard(output_dir: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(output_dir / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


async def test_exactly_the_samples_of_full_batches_are_trained_and_the_rest_is_handed_back(
    client: Redis, keys: RunKeys, source: Source, ledger: Ledger, streams: Streams, tmp_path: Path
) -> None:
    ids = [f"p{number}.0" for number in range(10)]
    await source.put_scored(ids)
    async with learning(client, keys, learner_config(tmp_path)) as learner:
        await learner.until(lambda: learner.status.checkpoint_step == 2)
        await learner.until(lambda: learner.status.num_collected == 2)
    states = await ledger.states()
    assert {sample for sample, state in states.items() if state.startswith("trained:")} == set(ids[:8])
    assert {states[sample] for sample in ids[8:]} == {"scored"}
    assert await streams.backlog(Stage.SCORED) == 2
    assert sorted(_checkpointed(tmp_path)) == sorted(ids[:8])
    counts = await ledger.counts()
    assert (counts.imbalance, counts.trained) == (0, 8)
    assert counts == await ledger.audit()


async def test_each_step_makes_a_version_that_is_on_offer_and_a_line_in_the_log(
    client: Redis, keys: RunKeys, source: Source, tmp_path: Path
) -> None:
    await source.put_scored([f"p{number}.0" for number in range(8)], version=1)
    async with learning(client, keys, learner_config(tmp_path)) as learner:
        await learner.until(lambda: learner.status.checkpoint_step == 2)
        newest = await learner.publisher.newer_than(0, wait_seconds=0)
        assert newest.version == 3
        assert await command(client, "GET", keys.latest_version) == b"3"
        delta = await learner.publisher.newer_than(1, wait_seconds=0)
        assert delta.parent == 1
        assert learner.health.ready()
    first, second = _steps(tmp_path)
    assert [(line["step"], line["version"]) for line in (first, second)] == [(1, 2), (2, 3)]
    assert (first["staleness_mean"], second["staleness_max"]) == (0, 1)
    names = {"kl_per_sequence_nats", "score_mean", "entropy", "pg_clipfrac", "is_weight_max", "step_seconds"}
    assert names <= first.keys()
    # No mix of pretraining texts, no number of it.
    assert "ptx_nll" not in first
    steps, scores = zip(*_on_tensorboard(tmp_path, "score_mean"), strict=True)
    assert steps == (1, 2)
    assert scores == pytest.approx((first["score_mean"], second["score_mean"]))


async def test_a_sample_may_carry_several_rollouts(
    client: Redis, keys: RunKeys, source: Source, ledger: Ledger, tmp_path: Path
) -> None:
    await source.put_scored(["a.0", "b.0"], num_responses=2)
    async with learning(client, keys, learner_config(tmp_path)) as learner:
        await learner.until(lambda: learner.status.checkpoint_step == 1)
        assert learner.status.newest["num_rollouts"] == 4
    assert (await ledger.counts()).trained == 2


async def test_stale_and_malformed_samples_are_dropped_and_counted_and_the_rest_is_trained(
    client: Redis, keys: RunKeys, source: Source, ledger: Ledger, streams: Streams, tmp_path: Path
) -> None:
    good = [f"good{number}.0" for number in range(4)]
    await source.put_scored([f"first{number}.0" for number in range(4)], version=1)
    async with learning(client, keys, learner_config(tmp_path, max_staleness=0)) as learner:
        await learner.until(lambda: learner.status.version == 2)
        await source.put_scored(["stale.0"], version=1)
        await source.put_scored(["future.0"], version=99)
        await source.put("broken.0", b"\xff\xff")
        await source.put("foreign.0", wire.dump_scored(scored_group("foreign.0", version=2, token=999)))
        await source.put_scored(good, version=2)
        await learner.until(lambda: learner.status.checkpoint_step == 2)
        assert learner.status.counters == {"trained_rollouts": 8, "dropped_stale": 2, "malformed": 2}
    states = await ledger.states()
    assert states["stale.0"] == states["future.0"] == "dropped:stale"
    assert states["broken.0"] == "dropped:malformed"
    assert states["foreign.0"] == "dropped:dead_letter"
    assert all(states[sample].startswith("trained:") for sample in good)
    assert (await ledger.counts()).imbalance == 0
    letters = await streams.dead_letters(Stage.SCORED, 10)
    assert {letter.sample_id: letter.error for letter in letters} == {"broken.0": "malformed", "foreign.0": "token_id"}


async def test_a_batch_that_was_never_acked_is_trained_by_the_next_learner_and_one_in_the_checkpoint_is_not(
    client: Redis, keys: RunKeys, source: Source, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"p{number}.0" for number in range(4)]
    await source.put_scored(ids)

    async def die_after_the_checkpoint(_: object, samples: Collection[object]) -> int:
        if samples:
            raise ConnectionAbortedError("the process is gone")
        return 0

    async def live_until_then() -> None:
        async with learning(client, keys, learner_config(tmp_path)) as learner:
            await learner.until(lambda: learner.status.checkpoint_step == 1)

    with monkeypatch.context() as patched:
        patched.setattr("onlinerlhf.learner.saver.Saver._ack", die_after_the_checkpoint)
        with pytest.raises(ExceptionGroup):
            await live_until_then()
    assert set((await ledger.states()).values()) == {"scored"}
    assert sorted(_checkpointed(tmp_path)) == ids
    async with learning(client, keys, learner_config(tmp_path)) as learner:
        await learner.until(lambda: learner.status.since is not None)
        assert learner.status.step == 1
        assert set((await ledger.states()).values()) == {"trained:2"}
    assert sorted(_checkpointed(tmp_path)) == ids
    assert len(_steps(tmp_path)) == 1


async def test_a_resumed_learner_publishes_under_a_number_above_all_that_were_seen(
    client: Redis, keys: RunKeys, source: Source, tmp_path: Path
) -> None:
    await source.put_scored([f"p{number}.0" for number in range(4)])
    async with learning(client, keys, learner_config(tmp_path)) as learner:
        await learner.until(lambda: learner.status.checkpoint_step == 1)
    # A version 3 was made by a step that no checkpoint contains.
    await command(client, "SET", keys.latest_version, 3)
    async with learning(client, keys, learner_config(tmp_path)) as learner:
        await learner.until(lambda: learner.status.since is not None)
        assert (learner.status.step, learner.status.version) == (1, 4)
        assert (await learner.publisher.newer_than(3, wait_seconds=0)).version == 4
    # Nothing changed: the number stays.
    async with learning(client, keys, learner_config(tmp_path)) as learner:
        await learner.until(lambda: learner.status.since is not None)
        assert learner.status.version == 4


async def test_versions_go_on_from_the_checkpoint_where_redis_and_the_version_files_are_lost(
    client: Redis, keys: RunKeys, source: Source, tmp_path: Path
) -> None:
    await source.put_scored([f"p{number}.0" for number in range(4)])
    async with learning(client, keys, learner_config(tmp_path)) as learner:
        await learner.until(lambda: learner.status.checkpoint_step == 1)
    await command(client, "DEL", keys.latest_version)
    shutil.rmtree(tmp_path / "versions")
    async with learning(client, keys, learner_config(tmp_path)) as learner:
        await learner.until(lambda: learner.status.since is not None)
        assert learner.status.version == 3
    assert await command(client, "GET", keys.latest_version) == b"3"


async def test_a_full_disk_acks_nothing_pauses_learning_and_recovers_by_itself(
    client: Redis, keys: RunKeys, source: Source, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = learner_config(tmp_path, max_unsaved_steps=2)
    async with learning(client, keys, config) as learner:
        await learner.until(lambda: (tmp_path / "checkpoints" / "step-00000000").exists())
        with monkeypatch.context() as patched:

            def full(*_: object) -> None:
                raise OSError(28, "No space left on device")

            patched.setattr("onlinerlhf.learner.checkpoints.write_tensors", full)
            await source.put_scored([f"p{number}.0" for number in range(12)])
            await learner.until(lambda: learner.status.phase == "waiting")
            assert (learner.status.step, learner.status.checkpoint_step) == (2, 0)
            assert set((await ledger.states()).values()) == {"scored"}
            disk = next(part for part in learner.health.components() if part.name == "disk")
            assert not disk.ok
            assert disk.reason.startswith("cannot write checkpoint") and "step-0000000" in disk.reason
            assert disk.reason.endswith(": No space left on device")
            assert not learner.health.ready()
        await learner.until(lambda: learner.status.checkpoint_step == 3)
        assert learner.health.ready()
    assert (await ledger.counts()).trained == 12
    assert len(_checkpointed(tmp_path)) == 12


async def test_a_version_that_cannot_be_written_leaves_the_old_one_on_offer_until_it_can(
    client: Redis, keys: RunKeys, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with learning(client, keys, learner_config(tmp_path)) as learner:
        await learner.until(lambda: learner.status.since is not None)
        with monkeypatch.context() as patched:

            def full(*_: object) -> None:
                raise OSError(28, "No space left on device")

            patched.setattr("onlinerlhf.learner.versions.write_tensors", full)
            await source.put_scored([f"p{number}.0" for number in range(4)])
            await learner.until(lambda: learner.status.checkpoint_step == 1)
            assert (await learner.publisher.newer_than(0, wait_seconds=0)).version == 1
            assert "version 2 was not published: No space left" in learner.status.errors["policy"]
        await learner.until(lambda: learner.publisher.newest_version() == 2)
        await learner.until(learner.health.ready)
        assert learner.status.last_error == ""


async def test_a_partial_batch_is_trained_only_where_a_longest_wait_is_set(
    client: Redis, keys: RunKeys, source: Source, ledger: Ledger, tmp_path: Path
) -> None:
    await source.put_scored(["a.0", "b.0", "c.0"])
    async with learning(client, keys, learner_config(tmp_path, max_wait_seconds=0.2)) as learner:
        await learner.until(lambda: learner.status.checkpoint_step == 1)
        assert learner.status.newest["num_rollouts"] == 3
        # Fewer than the minibatches: one each, and still no sample is left behind.
        await source.put_scored(["d.0"])
        await learner.until(lambda: learner.status.checkpoint_step == 2)
        assert learner.status.newest["num_rollouts"] == 1
    assert (await ledger.states())["d.0"] == "trained:3"
    async with learning(client, keys, learner_config(tmp_path)) as learner:
        await source.put_scored(["e.0"])
        await learner.until(lambda: learner.status.num_collected == 1)
    assert (await ledger.states())["e.0"] == "scored"


async def test_steps_between_checkpoints_are_acked_with_the_next_one_be_it_for_lack_of_samples(
    client: Redis, keys: RunKeys, source: Source, ledger: Ledger, tmp_path: Path
) -> None:
    await source.put_scored([f"p{number}.0" for number in range(8)])
    config = learner_config(tmp_path, checkpoint_every=10, checkpoint_idle_seconds=2.0)
    async with learning(client, keys, config) as learner:
        await learner.until(lambda: learner.status.step == 2)
        assert (await ledger.counts()).trained == 0
        await learner.until(lambda: learner.status.checkpoint_step == 2)
        await source.put_scored([f"q{number}.0" for number in range(4)])
        await learner.until(lambda: learner.status.step == 3)
        saved = await learner.checkpoint()
        assert (saved.step, saved.version) == (3, 4)
    assert (await ledger.counts()).trained == 12
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == [
        "step-00000000",
        "step-00000002",
        "step-00000003",
    ]


async def test_a_step_whose_numbers_cannot_be_recorded_anywhere_is_a_step_all_the_same(
    client: Redis, keys: RunKeys, source: Source, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onlinerlhf.learner.step_log.StepLog.append", full)
    monkeypatch.setattr("onlinerlhf.learner.training.tracker.SummaryWriter.add_scalar", full)
    await source.put_scored([f"p{number}.0" for number in range(4)])
    async with learning(client, keys, learner_config(tmp_path)) as learner:
        await learner.until(lambda: learner.status.checkpoint_step == 1)
        monkeypatch.setattr("onlinerlhf.learner.step_records.Tracker", full)
    await source.put_scored([f"q{number}.0" for number in range(4)])
    async with learning(client, keys, learner_config(tmp_path)) as learner:
        await learner.until(lambda: learner.status.checkpoint_step == 2)
    assert (await ledger.counts()).trained == 8


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
async def test_without_a_critic_samples_of_several_responses_are_learned_from_and_single_ones_are_refused(
    client: Redis,
    keys: RunKeys,
    source: Source,
    ledger: Ledger,
    streams: Streams,
    tmp_path: Path,
    estimator: str,
) -> None:
    def build() -> PPO:
        return tiny_ppo(advantage_estimator=estimator)

    await source.put_scored(["single.0"], num_responses=1)
    await source.put_scored(["a.0", "b.0"], num_responses=4)
    config = learner_config(tmp_path, batch_size=8, advantage_estimator=estimator, reward_dir="none")
    async with learning(client, keys, config, build) as learner:
        await learner.until(lambda: learner.status.checkpoint_step == 1)
        assert learner.status.newest["num_rollouts"] == 8
        assert "value_loss" not in learner.status.newest
    assert (await ledger.states())["single.0"] == "dropped:dead_letter"
    assert [letter.error for letter in await streams.dead_letters(Stage.SCORED, 10)] == ["group_size"]
    assert (await ledger.counts()).trained == 2


async def test_learning_stops_after_max_steps(
    client: Redis, keys: RunKeys, source: Source, ledger: Ledger, tmp_path: Path
) -> None:
    await source.put_scored([f"p{number}.0" for number in range(8)])
    async with learning(client, keys, learner_config(tmp_path, max_steps=1)) as learner:
        await learner.until(lambda: learner.status.phase == "done")
        assert learner.status.step == 1
    assert (await ledger.counts()).trained == 4


async def test_the_last_steps_are_saved_and_acked_however_rare_checkpoints_are(
    client: Redis, keys: RunKeys, source: Source, ledger: Ledger, tmp_path: Path
) -> None:
    await source.put_scored([f"p{number}.0" for number in range(8)])
    config = learner_config(tmp_path, max_steps=2, checkpoint_every=10, checkpoint_idle_seconds=1000)
    async with learning(client, keys, config) as learner:
        await learner.until(lambda: learner.status.checkpoint_step == 2)
        assert (await ledger.counts()).trained == 8


async def test_a_corrupt_newest_checkpoint_falls_back_to_the_one_before_it(
    client: Redis, keys: RunKeys, source: Source, tmp_path: Path
) -> None:
    await source.put_scored([f"p{number}.0" for number in range(8)])
    async with learning(client, keys, learner_config(tmp_path)) as learner:
        await learner.until(lambda: learner.status.checkpoint_step == 2)
    (tmp_path / "checkpoints" / "step-00000002" / "value.safetensors").write_bytes(b"")
    async with learning(client, keys, learner_config(tmp_path)) as learner:
        await learner.until(lambda: learner.status.since is not None)
        # Version 3 was seen by workers: the older weights go out under a new number.
        assert (learner.status.step, learner.status.version) == (1, 4)
        assert [line["step"] for line in _steps(tmp_path)] == [1]
    assert CheckpointStore(tmp_path / "checkpoints").load(tiny_ppo()) is not None
