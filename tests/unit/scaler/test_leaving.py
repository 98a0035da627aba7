"""A size has been written, and Kubernetes has not marked yet whom it stops for it; and workers that do not answer."""

from dataclasses import replace

from onlinerlhf.scaler.cordon import staying
from onlinerlhf.scaler.decision import decide
from onlinerlhf.scaler.observation import Decision, Memory, Pipeline, Worker
from onlinerlhf.scaler.pools import Scale
from onlinerlhf.scaler.reading import read_signals
from onlinerlhf.scaler.view import View
from unit.scaler.making import pipeline, pool, workers


def emptied(worker: Worker) -> Worker:
    return replace(worker, cordoned=True, ready=False)


def decided(replicas: int, found: tuple[Worker, ...], *, min_replicas: int) -> Decision:
    """By a scaler whose window for shrinking is over."""
    state = pool(replicas=replicas, at_least=min_replicas, holding=found)
    long_ago = Memory(wishes={"default": ((0.0, replicas),)})
    return decide(pipeline(in_flight=5), [state], long_ago, now=1_000.0)[0][0]


def test_emptied_workers_are_not_counted_for_a_second_shrink_while_kubernetes_stops_them() -> None:
    first, second, third, fourth, fifth = workers(5, 0, 0, 0, 0)
    there = (first, second, third, emptied(fourth), emptied(fifth))
    assert decided(3, staying(there, 3), min_replicas=1).replicas == 3
    assert decided(3, staying(there, 3), min_replicas=1).cordon == ("rollout-1", "rollout-2")


def test_those_that_leave_are_neither_counted_nor_lifted() -> None:
    first, second, third = workers(5, 0, 0)
    assert staying((first, second, emptied(third)), 2) == (first, second)


def test_a_size_that_grew_again_counts_all_of_them() -> None:
    there = tuple(emptied(worker) for worker in workers(0, 0, 0))
    assert staying(there, 3) == there
    assert len(staying(there, 2)) == 2


def test_surplus_pods_of_an_update_with_surge_are_not_taken_for_leaving() -> None:
    there = workers(0, 0, 0, 0)
    assert staying(there, 3) == there


def test_a_worker_with_work_or_without_an_answer_is_not_taken_for_leaving() -> None:
    first, second = workers(0, 3)
    assert len(staying((first, emptied(second)), 1)) == 2
    silent = replace(emptied(workers(0, 0)[1]), answered=False)
    assert len(staying((first, silent), 1)) == 2


def test_a_ready_worker_that_does_not_answer_is_cordoned_in_place_of_one_that_does() -> None:
    first, second = workers(0, 0)
    silent = replace(first, answered=False, version=0)
    decision = decided(2, (silent, emptied(second)), min_replicas=1)
    assert (decision.replicas, decision.cordon) == (2, ("rollout-0",))


class Run:
    """Signals: the last pod is emptied."""

    async def pipeline(self) -> Pipeline:
        return pipeline()

    async def workers(self, pods: object) -> tuple[Worker, ...]:
        first, second = workers(5, 0)
        return first, emptied(second)

    async def cordon(self, workers: object, *, lift: object) -> None:
        raise AssertionError("not to be called")


async def test_a_turn_reads_no_worker_that_leaves() -> None:
    pods = [{"metadata": {"name": name}} for name in ("rollout-0", "rollout-1")]
    scale = Scale(replicas=1, num_pods=2, selector="app=rollout", resource_version="7")
    view = View(pool={"metadata": {"name": "default", "uid": "u"}}, scale=scale, pods=pods, workers=workers(0, 0))
    assert (await read_signals(Run(), [view]))[1] is None
    assert [worker.name for worker in view.workers] == ["rollout-0"]
