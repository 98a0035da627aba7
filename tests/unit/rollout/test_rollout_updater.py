"""The label moves only after a version was verified and applied; trouble never loops hot."""

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest

from onlinerlhf.core.errors import StartupError
from onlinerlhf.rollout.admission import Admission
from onlinerlhf.rollout.staging import Staging
from onlinerlhf.rollout.updater import Updater
from onlinerlhf.runtime.health import Health
from unit.rollout.rollout_weights import FakeLearner

SHAPES = {"a.weight": (4,), "b.weight": (2, 2)}


def tensors(value: float) -> dict[str, np.ndarray]:
    return {name: np.full(shape, value, np.float32) for name, shape in SHAPES.items()}


class FakeEngine:
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.version = 0
        self.applied: list[tuple[int, bool]] = []
        self.fails = False

    async def apply(self, path: Path, version: int) -> float:
        if self.fails:
            raise RuntimeError("half")
        self.applied.append((version, path.exists()))  # noqa: ASYNC240
        self.version = version
        return 0.03


class Fixture:
    """An updater between a fake learner and a fake engine."""

    def __init__(self, directory: Path) -> None:
        self.sleeps: list[float] = []
        self.learner = FakeLearner()
        self.learner.versions[1] = tensors(1.0)
        self.engine = FakeEngine()
        self.health = Health("rollout")
        self.staging = Staging(self.learner, directory, expected_shapes=dict(SHAPES), sleep=self.sleep)
        self.staging.clear()
        self.updater = Updater(
            self.learner, self.staging, self.engine, self.health, manifest_wait_seconds=1.0, sleep=self.sleep
        )

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def fixture(tmp_path: Path) -> Fixture:
    return Fixture(tmp_path)


async def test_a_worker_is_not_ready_before_the_first_version_is_applied(fixture: Fixture) -> None:
    assert not fixture.health.ready()

    assert await fixture.updater.update_once()

    assert fixture.health.ready()
    assert fixture.engine.applied == [(1, True)]
    assert fixture.learner.manifests == [(0, True)]


async def test_the_first_question_is_for_everything_and_later_ones_for_what_changed(fixture: Fixture) -> None:
    await fixture.updater.update_once()
    fixture.learner.versions[2] = {**tensors(1.0), "b.weight": tensors(2.0)["b.weight"]}

    assert await fixture.updater.update_once()

    assert fixture.learner.manifests[1:] == [(1, False)]
    assert fixture.learner.fetches[-1] == (2, ("b.weight",), 0)
    assert fixture.engine.version == 2
    assert fixture.updater.num_applied == 2


async def test_nothing_newer_changes_nothing(fixture: Fixture) -> None:
    await fixture.updater.update_once()

    assert not await fixture.updater.update_once()
    assert await fixture.updater._turn() == 0.2

    assert fixture.engine.applied == [(1, True)]


async def test_refusals_keep_the_label_ask_for_everything_and_wait_ever_longer(fixture: Fixture) -> None:
    await fixture.updater.update_once()
    fixture.learner.versions[2] = tensors(float("nan"))

    waits = [await fixture.updater._turn() for _ in range(9)]

    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert fixture.engine.applied == [(1, True)]
    assert fixture.updater.num_refused == 9
    assert fixture.updater.last_refusal == "NonFiniteWeights: a.weight holds NaN or infinity"
    assert fixture.learner.manifests[1] == (1, False)
    assert set(fixture.learner.manifests[2:]) == {(1, True)}
    assert fixture.health.ready()


async def test_an_absent_learner_is_asked_again_within_two_seconds_while_the_old_version_serves(
    fixture: Fixture,
) -> None:
    await fixture.updater.update_once()
    fixture.learner.away = True

    waits = [await fixture.updater._turn() for _ in range(5)]

    assert waits == [0.5, 1, 2, 2, 2]
    assert fixture.health.ready()
    fixture.learner.away = False
    fixture.learner.versions[2] = tensors(2.0)
    assert await fixture.updater._turn() == 0


async def test_a_worker_that_never_got_a_version_says_what_it_waits_for(fixture: Fixture) -> None:
    fixture.learner.away = True

    await fixture.updater._turn()

    (weights,) = fixture.health.components()
    assert (weights.ok, weights.reason) == (False, "no policy version applied yet: the learner is away")


async def test_an_older_version_than_the_one_applied_is_refused(fixture: Fixture) -> None:
    fixture.learner.versions = {5: tensors(5.0)}
    await fixture.updater.update_once()
    fixture.learner.versions = {4: tensors(4.0)}

    await fixture.updater._turn()

    assert fixture.engine.version == 5
    assert fixture.updater.last_refusal == "WeightsRefused: version 4 is offered, older than 5"


async def test_a_failed_apply_ends_the_service(fixture: Fixture) -> None:
    fixture.engine.fails = True

    with pytest.raises(StartupError, match="applying version 1 failed"):
        await fixture.updater.update_once()

    assert not fixture.health.ready()


async def test_only_the_newest_staged_file_is_kept(fixture: Fixture, tmp_path: Path) -> None:
    for version in (1, 2, 3):
        fixture.learner.versions[version] = tensors(float(version))
        await fixture.updater.update_once()

    assert os.listdir(tmp_path) == ["3.safetensors"]


async def test_a_worker_too_far_behind_takes_no_training_work(fixture: Fixture) -> None:
    admission = Admission(fixture.updater, max_versions_behind=2)
    assert admission.refusal(fixture.engine.version) == "no policy version applied yet"
    await fixture.updater.update_once()
    assert admission.refusal(fixture.engine.version) == ""

    fixture.updater.newest_known = 3
    assert admission.refusal(fixture.engine.version) == ""
    fixture.updater.newest_known = 4
    assert admission.refusal(fixture.engine.version) == "3 versions behind the newest, at most 2 allowed"


async def test_the_loop_ends_with_stop(fixture: Fixture) -> None:
    stop = asyncio.Event()
    running = asyncio.ensure_future(fixture.updater.run(stop))
    while fixture.engine.version == 0:  # noqa: ASYNC110
        await asyncio.sleep(0)
    stop.set()
    async with asyncio.timeout(5):
        await running
