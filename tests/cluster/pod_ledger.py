"""Runs in a gateway pod, as text after `python -c`: the ledger as JSON, counted anew from every sample's state."""

import asyncio
import json
from dataclasses import asdict
from typing import Any

from onlinerlhf.gateway.config import GatewayConfig
from onlinerlhf.runtime import config, redis
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger


async def read(run: RunConfig) -> dict[str, Any]:
    """Counters, the same counted from the states, and the states."""
    client = redis.connect(run)
    try:
        ledger = Ledger(client, RunKeys(run.id))
        counts = await ledger.counts()
        return {
            "counts": asdict(counts),
            "imbalance": counts.imbalance,
            "audit": asdict(await ledger.audit()),
            "states": await ledger.states(),
        }
    finally:
        await client.aclose()


if __name__ == "__main__":
    run, _ = config.load("gateway", GatewayConfig)
    print(json.dumps(asyncio.run(read(run))))
