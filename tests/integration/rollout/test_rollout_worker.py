"""The rollout loop on a real Redis with a made-up sampler: who waits for whom, and what becomes of trouble."""

import asyncio
from pathlib import Path

from redis.asyncio import Redis

from integration.rollout.bench import bench
from integration.streams.support import pending
from onlinerlhf.core.errors import InvalidInput, Unavailable
from onlinerlhf.core.samples import SamplingSpec, Stage, VersionSpan
from onlinerlhf.runtime import wire
from onlinerlhf.runtime.consumer import RETURNED
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.redis import Patience, command


async def test_a_prompt_becomes_a_rollout_group_with_its_evidence(
    client: Redis, keys: RunKeys, patience: Patience, tmp_path: Path
) -> None:
    async with bench(client, keys, patience, tmp_path, num_responses=2, max_tokens=9) as it:
        it.sampler.may_answer.set()
        await it.put("a.0")
        await it.has(Stage.ROLLOUTS, 1)

    ((_, fields),) = await command(client, "XRANGE", keys.stream(Stage.ROLLOUTS), "-", "+")
    group = wire.load_group(fields[b"data"])
    assert fields[b"id"] == b"a.0"
    assert group.prompt.sample_id == "a.0"
    assert group.worker_id == "rollout-0"
    assert group.sampling == SamplingSpec(num_responses=2, max_tokens=9)
    assert [rollout.version_spans for rollout in group.rollouts] == [(VersionSpan(version=1, num_tokens=2),)] * 2
    assert group.rollouts[0].behaviour_logprobs == (-0.5, -1.5)
    assert await Ledger(client, keys).states() == {"a.0": "rollouts"}


async def test_no_more_samples_run_at_once_than_allowed_and_a_freed_slot_is_filled(
    client: Redis, keys: RunKeys, patience: Patience, tmp_path: Path
) -> None:
    async with bench(client, keys, patience, tmp_path, max_concurrent_samples=3, read_ahead_samples=2) as it:
        await it.put(*[f"{number}.0" for number in range(10)])
        await it.asked(3)
        await asyncio.sleep(0.1)
        assert it.worker.num_in_flight == 5
        it.sampler.may_answer.set()
        await it.has(Stage.ROLLOUTS, 10)

    assert it.sampler.most_in_flight == 3


async def test_reading_stops_max_samples_ahead_of_the_learner(
    client: Redis, keys: RunKeys, patience: Patience, tmp_path: Path
) -> None:
    async with bench(client, keys, patience, tmp_path, max_samples_ahead=4) as it:
        it.sampler.may_answer.set()
        await it.put(*[f"{number}.0" for number in range(10)])
        await it.has(Stage.ROLLOUTS, 4)
        await asyncio.sleep(0.3)
        assert await it.streams.backlog(Stage.ROLLOUTS) == 4
        assert await it.streams.backlog(Stage.PROMPTS) == 6
        await command(client, "XTRIM", keys.stream(Stage.ROLLOUTS), "MAXLEN", 1)
        await it.has(Stage.PROMPTS, 3)


async def test_a_worker_below_the_floor_reads_nothing_until_it_has_caught_up(
    client: Redis, keys: RunKeys, patience: Patience, tmp_path: Path
) -> None:
    async with bench(client, keys, patience, tmp_path) as it:
        it.refusal = "3 versions behind"
        it.sampler.may_answer.set()
        await asyncio.sleep(0.7)
        await it.put("a.0")
        await asyncio.sleep(0.3)
        assert it.sampler.asked == []
        it.refusal = ""
        await it.has(Stage.ROLLOUTS, 1)


async def test_a_failed_sample_is_tried_again_and_the_rest_flows_on(
    client: Redis, keys: RunKeys, patience: Patience, tmp_path: Path
) -> None:
    async with bench(client, keys, patience, tmp_path, lease_seconds=1.0) as it:
        failures = iter([Unavailable("the engine failed on a request")])
        it.sampler.trouble = lambda prompt: next(failures, None)
        it.sampler.may_answer.set()
        await it.put("a.0", "b.0", "c.0")
        await it.has(Stage.ROLLOUTS, 3)

    assert len(it.sampler.asked) == 4
    assert sum(request_id.endswith("-2") for request_id in it.sampler.asked) == 1


async def test_what_no_engine_can_take_and_what_cannot_be_decoded_is_buried_at_once(
    client: Redis, keys: RunKeys, patience: Patience, tmp_path: Path
) -> None:
    async with bench(client, keys, patience, tmp_path) as it:
        it.sampler.trouble = lambda prompt: InvalidInput("too long", reason="unsampleable")
        it.sampler.may_answer.set()
        await it.put("long.0")
        await it.put("broken.0", payload=b"\xff\xff")
        await it.has(Stage.PROMPTS, 0)
        letters = await it.streams.dead_letters(Stage.PROMPTS, 10)

    assert {(letter.sample_id, letter.error) for letter in letters} == {
        ("long.0", "unsampleable"),
        ("broken.0", "malformed"),
    }
    assert await Ledger(client, keys).states() == {"long.0": "dropped:dead_letter", "broken.0": "dropped:malformed"}


async def test_a_drain_finishes_what_it_can(client: Redis, keys: RunKeys, patience: Patience, tmp_path: Path) -> None:
    async with bench(client, keys, patience, tmp_path, drain_seconds=5.0) as it:
        await it.put("a.0", "b.0")
        await it.asked(2)
        it.stop.set()
        await asyncio.sleep(0.1)
        it.sampler.may_answer.set()

    assert await it.streams.backlog(Stage.ROLLOUTS) == 2


async def test_a_drain_gives_back_what_it_cannot_finish(
    client: Redis, keys: RunKeys, patience: Patience, tmp_path: Path
) -> None:
    async with bench(client, keys, patience, tmp_path, drain_seconds=0.2) as it:
        await it.put("a.0", "b.0")
        await it.asked(2)
        it.stop.set()
        async with asyncio.timeout(5):
            while it.worker.num_in_flight:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        assert await pending(client, keys, Stage.PROMPTS, "rollout-0") == 0

    assert await it.streams.backlog(Stage.PROMPTS) == 2
    assert await pending(client, keys, Stage.PROMPTS, RETURNED) == 2
    assert await Ledger(client, keys).states() == {"a.0": "prompts", "b.0": "prompts"}
