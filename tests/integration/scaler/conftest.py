"""The controller's suite runs on the fake API server, and on a real cluster where the environment names one."""

import os
from collections.abc import AsyncIterator

import pytest

from integration.scaler.support import StubSignals
from kube.cluster import REAL, Cluster, fake_cluster, real_cluster


@pytest.fixture(params=["fake", "real"])
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    """A namespace with the RolloutPool kind."""
    if request.param == "real" and not os.environ.get(REAL):
        pytest.skip(f"{REAL} names no cluster")
    async with fake_cluster() if request.param == "fake" else real_cluster() as found:
        yield found


@pytest.fixture
async def faulty() -> AsyncIterator[Cluster]:
    """On the fake alone: no real API server fails on demand."""
    async with fake_cluster() as found:
        yield found


@pytest.fixture
def signals() -> StubSignals:
    """An idle run."""
    return StubSignals()
