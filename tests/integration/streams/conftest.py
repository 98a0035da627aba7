"""Consumers of the test's own run."""

import pytest
from redis.asyncio import Redis

from integration.streams.support import MakeConsumer
from onlinerlhf.core.samples import Stage
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Patience
from onlinerlhf.runtime.streams import Consumer


@pytest.fixture
def consumer(client: Redis, keys: RunKeys, patience: Patience) -> MakeConsumer:
    """Makes consumers; without `async with` they have no heartbeat, like one that hangs."""

    def make(
        stage: Stage = Stage.PROMPTS, name: str = "one", *, lease_seconds: float = 30.0, delivery_limit: int | None = 5
    ) -> Consumer:
        return Consumer(
            client,
            keys,
            stage,
            name=name,
            patience=patience,
            lease_seconds=lease_seconds,
            delivery_limit=delivery_limit,
        )

    return make
