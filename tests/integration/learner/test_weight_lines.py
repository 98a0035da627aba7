"""The policy's weights and their moving average, offered under the same numbers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
import torch
from redis.asyncio import Redis
from safetensors.torch import load_file
from torch import Tensor

from integration.learner.learning import RunningLearner, Source, learner_config, learning
from onlinerlhf.core.errors import InvalidInput, NotFound, Unavailable
from onlinerlhf.core.weights import Line
from onlinerlhf.learner import files
from onlinerlhf.learner.lines import WeightLines, line_tensors
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.versions import VersionStore
from onlinerlhf.learner.weight_service import WeightServicer
from onlinerlhf.rollout.learner_source import LearnerSource
from onlinerlhf.rollout.staging import Staging
from onlinerlhf.runtime import channels
from onlinerlhf.runtime.interceptor import CallInterceptor
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.v1 import weights_pb2_grpc
from unit.learner.tiny import tiny_ppo

FOUR = [f"p{number}.0" for number in range(4)]
FOUR_MORE = [f"q{number}.0" for number in range(4)]


@pytest.fixture
def source(client: Redis, keys: RunKeys) -> Source:
    return Source(client, keys)


@asynccontextmanager
async def offered(lines: WeightLines, line: str) -> AsyncIterator[LearnerSource]:
    """What a worker pulls a line through."""
    server = grpc.aio.server(interceptors=[CallInterceptor(max_call_seconds=60)])
    weights_pb2_grpc.add_WeightServiceServicer_to_server(WeightServicer(lines), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = channels.open_channel(f"127.0.0.1:{port}", max_message_bytes=4 << 20)
    yield LearnerSource(channel, fetch_timeout_seconds=10, line=line)
    await channel.close()
    await server.stop(None)


def _same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def _offered_weights(learner: RunningLearner, line: Line, version: int) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load_file(learner.lines.publishers[line].get(version).path)
    return tensors


async def test_each_version_is_offered_twice_and_the_second_time_with_the_average(
    client: Redis, keys: RunKeys, source: Source, tmp_path: Path
) -> None:
    ppo = tiny_ppo()
    assert ppo.ema is not None
    await source.put_scored(FOUR)
    async with learning(client, keys, learner_config(tmp_path), lambda: ppo) as learner:
        await learner.until(lambda: learner.status.checkpoint_step == 1)
        policy, average = (_offered_weights(learner, line, 2) for line in Line)
        assert _same(policy, line_tensors(ppo, Line.POLICY))
        assert not _same(policy, average)
        name = "model.layers.0.mlp.up_proj.weight"
        place = ppo.policy_optimizer.names.index(name)
        torch.testing.assert_close(average[name], ppo.ema.shadow[place], rtol=0, atol=0)
        assert _same(average, line_tensors(ppo, Line.EMA))
        # Two updates from weights w: 0.992^2 w + ..., so nearer to the start than the policy is.
        start = _offered_weights(learner, Line.POLICY, 1)[name]
        assert (average[name] - start).norm() < 0.02 * (policy[name] - start).norm()
    assert (tmp_path / "versions-ema" / "version-00000002.safetensors").exists()


async def test_a_worker_can_follow_the_average_by_deltas(
    client: Redis, keys: RunKeys, source: Source, tmp_path: Path
) -> None:
    ppo = tiny_ppo()
    shapes = {name: tuple(tensor.shape) for name, tensor in line_tensors(ppo, Line.EMA).items()}
    await source.put_scored(FOUR)
    async with learning(client, keys, learner_config(tmp_path / "learner"), lambda: ppo) as learner:
        await learner.until(lambda: learner.status.checkpoint_step == 1)
        async with offered(learner.lines, "ema") as pulled:
            staging = Staging(pulled, tmp_path / "staging", expected_shapes=shapes)
            staging.clear()
            first = await pulled.manifest(have_version=0, wait_seconds=5, full=True)
            await staging.keep(await staging.stage(first))
            await source.put_scored(FOUR_MORE)
            second = await pulled.manifest(have_version=first.version, wait_seconds=20, full=False)
            staged = await staging.stage(second)
        assert (first.version, first.parent, second.version, second.parent) == (2, 0, 3, 2)
        await learner.until(lambda: learner.status.checkpoint_step == 2)
        assert _same(load_file(staged.path), line_tensors(ppo, Line.EMA))


async def test_a_restart_offers_both_lines_again_and_one_that_a_crash_left_behind_catches_up(
    client: Redis, keys: RunKeys, source: Source, tmp_path: Path
) -> None:
    await source.put_scored(FOUR)
    async with learning(client, keys, learner_config(tmp_path)) as learner:
        await learner.until(lambda: learner.status.checkpoint_step == 1)
        average = _offered_weights(learner, Line.EMA, 2)
    for _ in range(2):
        async with learning(client, keys, learner_config(tmp_path)) as learner:
            await learner.until(lambda: learner.status.since is not None)
            newest = [(await line.newer_than(0, wait_seconds=0)).version for line in learner.lines.publishers.values()]
            assert (learner.status.version, newest) == (2, [2, 2])
            assert _same(_offered_weights(learner, Line.EMA, 2), average)
            assert learner.health.ready()
        # Killed between the two.
        (tmp_path / "versions-ema" / "version-00000002.safetensors").unlink()


async def test_an_average_under_a_number_that_was_used_for_another_takes_both_lines_to_a_new_number(
    client: Redis, keys: RunKeys, source: Source, tmp_path: Path
) -> None:
    async with learning(client, keys, learner_config(tmp_path)) as learner:
        await learner.until(lambda: learner.status.checkpoint_step == 0 and learner.status.since is not None)
    other = VersionStore(tmp_path / "versions-ema")
    other.save(line_tensors(tiny_ppo(tie_word_embeddings=False), Line.EMA), 2)
    async with learning(client, keys, learner_config(tmp_path)) as learner:
        await learner.until(lambda: learner.status.since is not None)
        assert [line.newest_version() for line in learner.lines.publishers.values()] == [3, 3]


async def test_an_average_that_cannot_be_written_holds_the_policy_back_in_nothing(
    client: Redis, keys: RunKeys, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = files.write_tensors
    async with learning(client, keys, learner_config(tmp_path)) as learner:
        await learner.until(lambda: learner.status.since is not None)
        with monkeypatch.context() as patched:

            def full(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
                if path.parent.name == "versions-ema":
                    raise OSError(28, "No space left on device")
                write(tensors, path, metadata)

            patched.setattr("onlinerlhf.learner.versions.write_tensors", full)
            await source.put_scored([*FOUR, *FOUR_MORE])
            await learner.until(lambda: learner.status.checkpoint_step == 2)
            assert [line.newest_version() for line in learner.lines.publishers.values()] == [3, 1]
            parts = {part.name: part for part in learner.health.components()}
            assert (parts["policy"].ok, parts["ema"].ok) == (True, False)
            assert parts["ema"].reason == "version 3 of line ema was not published: No space left on device"
            assert learner.status.last_error == parts["ema"].reason
        await learner.until(lambda: learner.lines.publishers[Line.EMA].newest_version() == 3)
        await learner.until(learner.health.ready)
        assert learner.status.last_error == ""


async def test_a_learner_without_an_average_says_so_and_names_the_lines_when_asked_for_an_unknown_one(
    client: Redis, keys: RunKeys, tmp_path: Path
) -> None:
    def build() -> PPO:
        return tiny_ppo(ema_decay=None)

    async with learning(client, keys, learner_config(tmp_path, ema_decay="none"), build) as learner:
        await learner.until(lambda: learner.status.since is not None)
        assert list(learner.lines.publishers) == [Line.POLICY]
        async with offered(learner.lines, "") as pulled:
            assert (await pulled.manifest(have_version=0, wait_seconds=0, full=False)).version == 1
        async with offered(learner.lines, "ema") as pulled:
            with pytest.raises(Unavailable, match=r"no moving average is kept \(learner.ema_decay is none\)"):
                await pulled.manifest(have_version=0, wait_seconds=0, full=False)
            with pytest.raises(NotFound, match="no moving average"):
                await anext(pulled.fetch(version=1, tensors=(), offset=0))
        async with offered(learner.lines, "emma") as pulled:
            with pytest.raises(InvalidInput, match="no weight line 'emma'; the lines are policy, ema") as caught:
                await pulled.manifest(have_version=0, wait_seconds=0, full=False)
            assert caught.value.reason == "line"
    assert not (tmp_path / "versions-ema").exists()
