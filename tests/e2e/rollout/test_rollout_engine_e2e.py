"""Weights in, logprobs out, on real vLLM: exact after every kind of update, and to the token in flight."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
import pytest_asyncio

from e2e.rollout.room import PROMPT, Room, eventually, moved, open_room
from onlinerlhf.core.errors import BaseMissing, ChecksumMismatch, InvalidInput, NonFiniteWeights, WeightsRefused
from onlinerlhf.core.samples import Rollout, SamplingSpec
from onlinerlhf.v1 import records_pb2, rollout_pb2, weights_pb2

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(240),
    # vLLM's own imports and processes.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
EXACT = 1e-4
LONG = SamplingSpec(num_responses=1, max_tokens=300)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["tied", "untied"])
async def room(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Room]:
    directory: Path = tmp_path_factory.mktemp(request.param)
    async with open_room(directory, tied=request.param == "tied") as room:
        assert ("lm_head.weight" in room.initial()) == (request.param == "untied")
        yield room


def newest(room: Room) -> dict[str, np.ndarray]:
    return room.learner.versions[room.engine.version]


async def test_after_start_a_fresh_request_is_exact_under_version_1(room: Room) -> None:
    assert room.engine.version == 1
    assert await room.fresh_error(room.initial()) < EXACT


async def test_after_a_full_update_a_fresh_request_is_exact(room: Room) -> None:
    tensors = moved(newest(room), seed=1)
    before = await room.fresh_error(newest(room))
    room.learner.publish(tensors)
    room.updater._ask_full = True

    assert await room.updater.update_once()

    assert room.learner.asked_full[-1]
    assert before < EXACT
    assert await room.fresh_error(tensors) < EXACT
    assert room.updater.pause_seconds < 1.0


@pytest.mark.parametrize(
    "changed",
    [
        ("model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.up_proj.weight"),
        ("model.embed_tokens.weight",),
        ("model.norm.weight",),
    ],
    ids=["parts of fused layers", "the embedding", "the last norm"],
)
async def test_after_a_delta_a_fresh_request_is_exact(room: Room, changed: tuple[str, ...]) -> None:
    tensors = moved(newest(room), seed=2, scale=0.2, only=lambda name: name in changed)
    unchanged = newest(room)
    room.learner.publish(tensors)

    assert await room.updater.update_once()

    assert room.learner.fetched[-1] == tuple(sorted(changed))
    assert await room.fresh_error(tensors) < EXACT
    assert np.abs(room.errors(unchanged, PROMPT, await room.sample())).max() > 0.01


async def test_logprobs_are_of_the_distribution_that_was_drawn_from_whatever_the_temperature(room: Room) -> None:
    spec = SamplingSpec(num_responses=3, max_tokens=8, temperature=0.5)
    rollouts = await room.engine.sample(PROMPT, spec, request_id="cold")

    assert len(rollouts) == 3
    for rollout in rollouts:
        assert np.abs(room.errors(newest(room), PROMPT, rollout, temperature=0.5)).max() < EXACT
        assert np.abs(room.errors(newest(room), PROMPT, rollout)).max() > 0.01


def flip_a_bit(chunk: weights_pb2.Chunk) -> weights_pb2.Chunk:
    chunk.data = bytes([chunk.data[0] ^ 1]) + chunk.data[1:]
    return chunk


def cut_short(chunk: weights_pb2.Chunk) -> weights_pb2.Chunk:
    chunk.data = chunk.data[: len(chunk.data) // 2]
    return chunk


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        ("corrupt chunk", ChecksumMismatch),
        ("truncated chunk", ChecksumMismatch),
        ("base missing", BaseMissing),
        ("nan", NonFiniteWeights),
        ("another model", WeightsRefused),
    ],
)
async def test_a_bad_update_is_refused_and_the_old_version_serves_under_its_old_label(
    room: Room, trouble: str, error: type[Exception]
) -> None:
    old_version, old = room.engine.version, newest(room)
    bad = moved(old, seed=3)
    if trouble == "corrupt chunk":
        room.learner.spoil = flip_a_bit
    elif trouble == "truncated chunk":
        room.learner.spoil = cut_short
    elif trouble == "base missing":
        room.learner.claim_parent = old_version - 1
    elif trouble == "nan":
        bad["model.norm.weight"] = np.full_like(bad["model.norm.weight"], np.nan)
    else:
        bad["model.norm.weight"] = np.zeros((3,), np.float32)
    room.learner.publish(bad)
    try:
        with pytest.raises(error):
            await room.updater.update_once()
        refused = room.updater.num_refused
        waits = await room.updater._turn()
    finally:
        room.learner.spoil, room.learner.claim_parent = lambda chunk: chunk, None

    assert waits > 0
    assert room.updater.num_refused == refused + 1
    assert room.engine.version == old_version
    assert await room.fresh_error(old) < EXACT
    # The next good version is asked for in full, and taken.
    good = moved(old, seed=4)
    room.learner.publish(good)
    assert await room.updater._turn() == 0
    assert room.learner.asked_full[-1]
    assert await room.fresh_error(good) < EXACT


async def test_every_token_in_flight_across_an_update_has_the_version_that_sampled_it(room: Room) -> None:
    old = newest(room)
    old_version = room.engine.version
    prompts = [(*PROMPT, 11 + index) for index in range(16)]
    tasks = [asyncio.create_task(room.sample(prompt, LONG)) for prompt in prompts]
    await asyncio.sleep(0.4)
    new = moved(old, seed=5, scale=0.3)
    new_version = room.learner.publish(new)
    assert await room.updater.update_once()
    rollouts = await asyncio.gather(*tasks)

    crossing = [(prompt, each) for prompt, each in zip(prompts, rollouts, strict=True) if len(each.version_spans) == 2]
    assert len(crossing) >= 4
    first_after: list[float] = []
    for prompt, rollout in crossing:
        assert [span.version for span in rollout.version_spans] == [old_version, new_version]
        boundary = rollout.version_spans[0].num_tokens
        errors = np.abs(room.errors(old, prompt, rollout))
        assert errors[:boundary].max() < EXACT
        first_after.append(errors[boundary])
    # The weights moved a lot: were the boundary one token late, these would be as small as the others.
    assert min(first_after) > EXACT
    assert float(np.median(first_after)) > 0.1


async def test_users_are_served_while_64_training_requests_run(room: Room) -> None:
    training = [asyncio.create_task(room.sample((*PROMPT, 20 + index), LONG)) for index in range(64)]
    await asyncio.sleep(0.3)
    started = time.monotonic()
    call = room.stub.Generate(
        rollout_pb2.RolloutGenerateRequest(prompt_token_ids=PROMPT, max_tokens=8, temperature=1.0), timeout=30
    )
    messages = [message async for message in call]
    user_seconds = time.monotonic() - started
    num_unfinished = sum(not task.done() for task in training)
    await asyncio.gather(*training)

    assert sum(len(message.token_ids) for message in messages) == sum(
        span.num_tokens for span in messages[-1].version_spans
    )
    assert messages[-1].finish_reason != records_pb2.FINISH_REASON_UNSPECIFIED
    assert all(message.finish_reason == records_pb2.FINISH_REASON_UNSPECIFIED for message in messages[:-1])
    assert messages[-1].version_spans[0].version == room.engine.version
    assert num_unfinished > 32
    assert user_seconds < 10


async def test_a_user_that_goes_away_is_aborted_in_the_engine(room: Room) -> None:
    call = room.stub.Generate(
        rollout_pb2.RolloutGenerateRequest(prompt_token_ids=PROMPT, max_tokens=400, temperature=1.0), timeout=30
    )
    async for _ in call:
        break
    call.cancel()
    await eventually(lambda: room.engine._llm.get_num_unfinished_requests() == 0, seconds=5)
    status = await room.stub.GetStatus(rollout_pb2.GetRolloutStatusRequest(), timeout=5)

    assert status.num_in_flight == 0
    assert status.ready
    assert status.version == room.engine.version
    assert status.num_updates_applied == room.updater.num_applied
    assert 0 < status.pause_seconds < 1
    assert 0 < status.idle_share < 1


async def test_a_prompt_that_the_engine_cannot_take_is_invalid_input(room: Room) -> None:
    with pytest.raises(InvalidInput, match="a prompt of 600 tokens"):
        await room.sample((1,) * 600)
    assert room.engine.trouble() == ""


async def test_a_request_with_no_tokens_is_refused_at_the_border(room: Room) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await room.stub.Generate(rollout_pb2.RolloutGenerateRequest(max_tokens=8, temperature=1.0), timeout=5).read()


async def test_a_dead_engine_process_is_noticed_and_never_reported_as_success(room: Room) -> None:
    in_flight = [asyncio.create_task(room.sample((*PROMPT, 30 + index), LONG)) for index in range(16)]
    await asyncio.sleep(0.1)
    for child in psutil.Process().children(recursive=False):
        if "EngineCore" in child.name() or "EngineCore" in " ".join(child.cmdline()):
            child.kill()
    await eventually(lambda: bool(room.engine.trouble()), seconds=10)

    from onlinerlhf.rollout.engine import EngineLost

    assert room.engine.trouble() == "the vLLM engine process died"
    outcomes = await asyncio.gather(*in_flight, return_exceptions=True)
    # Some may have ended before; no other ended with anything but this error.
    assert sum(isinstance(outcome, EngineLost) for outcome in outcomes) > 8
    assert all(isinstance(outcome, EngineLost | Rollout) for outcome in outcomes)
    with pytest.raises(EngineLost):
        await room.sample()
    status = await room.stub.GetStatus(rollout_pb2.GetRolloutStatusRequest(), timeout=5)
    assert not status.ready
    assert "died" in status.reason
