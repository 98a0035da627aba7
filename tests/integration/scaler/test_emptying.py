"""Workers are emptied before they are stopped: the controller, and pods that take what comes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from integration.scaler.support import StubSignals, scaling
from kube.cluster import Cluster, eventually

SAMPLING_SECONDS = 0.5


@asynccontextmanager
async def trickling(cluster: Cluster, signals: StubSignals) -> AsyncIterator[list[str]]:
    """Prompts land on every worker that may take one, all the time. The pods that were stopped with work in hand."""
    stopped_with_work: list[str] = []

    async def work() -> None:
        free_at: dict[str, float] = {}
        while True:
            now = asyncio.get_running_loop().time()
            names = {pod["metadata"]["name"] for pod in await cluster.pods()}
            stopped_with_work.extend(name for name in signals.in_hand.keys() - names)
            for name in names:
                if name not in signals.cordoned:
                    free_at[name] = now + SAMPLING_SECONDS
            signals.in_hand = {name: 1 for name in names if free_at.get(name, 0.0) > now}
            signals.backlog = len(signals.in_hand)
            await asyncio.sleep(0.02)

    working = asyncio.create_task(work(), name="workers")
    try:
        yield stopped_with_work
        assert not working.done(), working.exception()
    finally:
        working.cancel()
        await asyncio.wait([working])


async def test_a_pool_with_a_trickle_on_every_worker_shrinks_and_stops_none_that_holds_work(
    faulty: Cluster, signals: StubSignals
) -> None:
    await faulty.deploy(replicas=4)
    await faulty.pool(minReplicas=1, maxReplicas=4, samplesPerReplica=64, scaleDownSeconds=1)
    async with trickling(faulty, signals) as stopped_with_work:
        await eventually("four work", lambda: _holding(signals, 4))
        async with scaling(faulty, signals):
            await eventually("three are emptied", lambda: _says(faulty, "3 workers are emptied first, then 1 do"))
            assert (await faulty.status())["reason"] == "WorkInHand"
            await eventually("one is left", lambda: _has(faulty, 1))
            (left,) = await faulty.pods()
            assert left["metadata"]["name"] not in signals.cordoned
        assert stopped_with_work == []


async def test_a_worker_that_does_not_get_done_is_waited_for_and_called_back_when_it_is_needed(
    faulty: Cluster, signals: StubSignals
) -> None:
    await faulty.deploy(replicas=3)
    await faulty.pool(minReplicas=1, maxReplicas=3, samplesPerReplica=10)
    await eventually("three pods", lambda: _running(faulty, 3))
    slow, busy, idle = sorted(pod["metadata"]["name"] for pod in await faulty.pods())
    signals.in_hand, signals.backlog = {slow: 1, busy: 8}, 9
    async with scaling(faulty, signals):
        await eventually("the idle one is gone", lambda: _has(faulty, 2))
        assert idle not in {pod["metadata"]["name"] for pod in await faulty.pods()}
        await asyncio.sleep(0.6)
        assert slow in signals.cordoned and await faulty.replicas() == 2
        signals.backlog = 40
        await eventually("called back", lambda: _is_free(signals, slow))
        assert await faulty.replicas() == 2


async def test_where_the_cordons_cannot_be_written_nothing_shrinks_and_the_status_says_so(
    faulty: Cluster, signals: StubSignals
) -> None:
    await faulty.deploy(replicas=3)
    await faulty.pool(minReplicas=1, maxReplicas=3)
    await eventually("three pods", lambda: _running(faulty, 3))
    signals.refuses_cordons = True
    # Emptied already, by a scaler before this one.
    signals.cordoned = {pod["metadata"]["name"] for pod in (await faulty.pods())[:2]}
    async with scaling(faulty, signals):
        await eventually("held", lambda: _says(faulty, "cordons could not be written: keeps 3 replicas; 1 would do"))
        assert await faulty.condition("Degraded") == ("True", "SignalsMissing")
        assert await faulty.replicas() == 3
        signals.refuses_cordons = False
        await eventually("one is left", lambda: _has(faulty, 1))


async def test_an_operators_size_waits_for_nobody(faulty: Cluster, signals: StubSignals) -> None:
    await faulty.deploy(replicas=3)
    await faulty.pool(maxReplicas=3, replicas=1)
    await eventually("three pods", lambda: _running(faulty, 3))
    signals.in_hand = {pod["metadata"]["name"]: 5 for pod in await faulty.pods()}
    signals.backlog = 15
    async with scaling(faulty, signals):
        await eventually("one is left", lambda: _has(faulty, 1))
    assert signals.cordoned == set()


async def _holding(signals: StubSignals, count: int) -> bool:
    return len(signals.in_hand) == count


async def _says(cluster: Cluster, words: str) -> bool:
    return words in (await cluster.status()).get("message", "")


async def _has(cluster: Cluster, count: int) -> bool:
    return len(await cluster.pods()) == count


async def _running(cluster: Cluster, count: int) -> bool:
    return [pod["status"].get("phase") for pod in await cluster.pods()] == ["Running"] * count


async def _is_free(signals: StubSignals, name: str) -> bool:
    return name not in signals.cordoned
