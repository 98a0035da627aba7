"""A rollout worker that the scaler empties: it takes no samples, wants no users, and finishes what it has."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from redis.asyncio import Redis

from integration.rollout.bench import Bench, bench
from integration.streams.support import eventually
from onlinerlhf.core.samples import Stage
from onlinerlhf.rollout.admission import cordon_shown
from onlinerlhf.runtime.cordon import EMPTYING, cordon
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Patience
from onlinerlhf.runtime.streams import RETURNED


def for_users(it: Bench, *, expected: bool) -> Callable[[], Awaitable[bool]]:
    """Whether the worker's health says so by now."""

    async def check() -> bool:
        return it.health.ready_for_users() is expected

    return check


async def test_a_cordoned_worker_finishes_what_it_has_and_takes_no_more_until_the_cordon_is_lifted(
    client: Redis, keys: RunKeys, patience: Patience, tmp_path: Path
) -> None:
    async with bench(client, keys, patience, tmp_path) as it:
        await it.put("a.0")
        await it.asked(1)
        await cordon(client, keys, ["rollout-0"], seconds=60)
        await eventually(for_users(it, expected=False), seconds=3)
        assert cordon_shown(it.health) == EMPTYING
        await it.put("b.0")
        it.sampler.may_answer.set()
        await it.has(Stage.ROLLOUTS, 1)
        assert it.worker.num_in_flight == 0 and await it.streams.backlog(Stage.PROMPTS) == 1

        await cordon(client, keys, [], lift=["rollout-0"], seconds=60)
        await it.has(Stage.ROLLOUTS, 2)
        await eventually(for_users(it, expected=True), seconds=3)
        assert cordon_shown(it.health) == ""


async def test_a_worker_that_waits_for_the_learner_or_the_floor_learns_of_its_cordon_too(
    client: Redis, keys: RunKeys, patience: Patience, tmp_path: Path
) -> None:
    async with bench(client, keys, patience, tmp_path, max_samples_ahead=1) as it:
        it.sampler.may_answer.set()
        await it.put("a.0")
        await it.has(Stage.ROLLOUTS, 1)
        await cordon(client, keys, ["rollout-0"], seconds=60)
        await eventually(for_users(it, expected=False), seconds=3)
        it.refusal = "3 versions behind"
        await cordon(client, keys, [], lift=["rollout-0"], seconds=60)
        await eventually(for_users(it, expected=True), seconds=3)


async def test_a_drain_of_a_cordoned_worker_gives_back_what_it_cannot_finish(
    client: Redis, keys: RunKeys, patience: Patience, tmp_path: Path
) -> None:
    async with bench(client, keys, patience, tmp_path, drain_seconds=0.5) as it:
        await it.put("a.0")
        await it.asked(1)
        await cordon(client, keys, ["rollout-0"], seconds=60)
        await eventually(for_users(it, expected=False), seconds=3)
        it.stop.set()

        async def given_back() -> bool:
            return [each.name for each in await it.streams.consumers(Stage.PROMPTS)] == [RETURNED]

        await eventually(given_back)
