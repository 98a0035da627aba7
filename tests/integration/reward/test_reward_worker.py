"""The reward loop on a real Redis: what can be scored is, what cannot never gets a number."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis

from integration.streams.support import eventually, put
from onlinerlhf.core.samples import (
    FinishReason,
    Rollout,
    RolloutGroup,
    SamplingSpec,
    Stage,
    VersionSpan,
)
from onlinerlhf.reward.config import RewardConfig
from onlinerlhf.reward.engine import ScoreItem, ScoringFailed
from onlinerlhf.reward.worker import RewardWorker
from onlinerlhf.runtime import wire
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.redis import Patience, command
from onlinerlhf.runtime.streams import Consumer, Streams
from prompts import a_prompt

POISON_TOKEN = 666


class LengthScorer:
    """Scores a response by its length; fails on the poison token, like a model that gives NaN."""

    version = "length-1"

    async def score(self, items: Sequence[ScoreItem]) -> list[float]:
        if any(POISON_TOKEN in item.response_token_ids for item in items):
            raise ScoringFailed("not finite")
        return [float(len(item.response_token_ids)) for item in items]


def group(sample_id: str, *responses: tuple[int, ...]) -> bytes:
    prompt = a_prompt(sample_id=sample_id, token_ids=(1, 2))
    rollouts = tuple(
        Rollout(
            token_ids=ids,
            behaviour_logprobs=(-1.0,) * len(ids),
            version_spans=(VersionSpan(version=1, num_tokens=len(ids)),),
            finish_reason=FinishReason.EOS,
        )
        for ids in responses
    )
    sampling = SamplingSpec(num_responses=len(rollouts), max_tokens=8)
    return wire.dump_group(RolloutGroup(prompt=prompt, sampling=sampling, rollouts=rollouts, worker_id="w"))


@asynccontextmanager
async def working(client: Redis, keys: RunKeys, patience: Patience, streams: Streams) -> AsyncIterator[None]:
    """A reward worker for the length of the block; it must drain cleanly."""
    consumer = Consumer(
        client, keys, Stage.ROLLOUTS, name="reward-0", patience=patience, lease_seconds=0.3, delivery_limit=3
    )
    worker = RewardWorker(consumer, streams, LengthScorer(), RewardConfig(model_dir=Path("unused")))
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.run(stop), name="worker")
        yield
        stop.set()


async def test_each_response_gets_its_score_and_the_version_that_gave_it(
    client: Redis, keys: RunKeys, patience: Patience, streams: Streams, ledger: Ledger
) -> None:
    await put(client, keys, "a", group("a", (5, 6, 7), (5,)), stage=Stage.ROLLOUTS)
    await put(client, keys, "b", group("b", (5, 6)), stage=Stage.ROLLOUTS)
    async with working(client, keys, patience, streams):
        await eventually(lambda: _is(ledger, {"a": "scored", "b": "scored"}))
    entries = await command(client, "XRANGE", keys.stream(Stage.SCORED), "-", "+")
    scored = [wire.load_scored(fields[fields.index(b"data") + 1]) for _, fields in _flat(entries)]
    assert {each.group.prompt.sample_id: each.scores for each in scored} == {"a": (3.0, 1.0), "b": (2.0,)}
    assert {each.reward_model_version for each in scored} == {"length-1"}
    assert await streams.backlog(Stage.ROLLOUTS) == 0


async def test_what_cannot_be_scored_is_retried_then_dead_lettered_and_its_neighbours_flow(
    client: Redis, keys: RunKeys, patience: Patience, streams: Streams, ledger: Ledger
) -> None:
    await put(client, keys, "good-1", group("good-1", (5,)), stage=Stage.ROLLOUTS)
    await put(client, keys, "poison", group("poison", (5, POISON_TOKEN)), stage=Stage.ROLLOUTS)
    await put(client, keys, "good-2", group("good-2", (5, 6)), stage=Stage.ROLLOUTS)
    await put(client, keys, "garbled", b"\xff\xff not protobuf", stage=Stage.ROLLOUTS)
    ends = {
        "good-1": "scored", "good-2": "scored", "poison": "dropped:dead_letter", "garbled": "dropped:malformed",
    }  # fmt: skip
    async with working(client, keys, patience, streams):
        await eventually(lambda: _is(ledger, ends))
    letters = {letter.sample_id: letter for letter in await streams.dead_letters(Stage.ROLLOUTS, 10)}
    assert letters["poison"].attempts == 3
    assert letters["poison"].error == "ScoringFailed"
    assert letters["garbled"].error == "malformed"
    assert (await ledger.counts()).imbalance == 0


async def _is(ledger: Ledger, states: dict[str, str]) -> bool:
    return await ledger.states() == states


def _flat(entries: object) -> list[tuple[bytes, list[bytes]]]:
    assert isinstance(entries, list)
    return [
        (entry, [part for pair in fields.items() for part in pair] if isinstance(fields, dict) else list(fields))
        for entry, fields in entries
    ]
