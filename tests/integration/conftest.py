"""What the integration suites share: a run's streams with samples to put in."""

import pytest
from redis.asyncio import Redis

from integration.streams.support import Admit, admitter
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.streams import Streams


@pytest.fixture
def admit(client: Redis, keys: RunKeys) -> Admit:
    """Puts samples into a stage, as its producer would."""
    return admitter(client, keys)


@pytest.fixture
def ledger(client: Redis, keys: RunKeys) -> Ledger:
    """The run's ledger."""
    return Ledger(client, keys)


@pytest.fixture
async def streams(client: Redis, keys: RunKeys) -> Streams:
    """The run's streams, made."""
    streams = Streams(client, keys)
    await streams.ensure_groups()
    return streams
