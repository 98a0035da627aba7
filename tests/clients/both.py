"""One call through either Python client, so that a test can hold for both."""

import asyncio
from typing import Any

import pytest

from onlinerlhf_client import AsyncClient, Client, Timeouts

QUICK = Timeouts(total_seconds=5.0, first_delay_seconds=0.01, max_delay_seconds=0.05)


async def asynchronously(target: str, api_key: str, method: str, *args: Any, **options: Any) -> Any:
    async with AsyncClient(target, api_key=api_key, timeouts=QUICK) as client:
        return await _method(client, method)(*args, **options)


async def in_a_thread(target: str, api_key: str, method: str, *args: Any, **options: Any) -> Any:
    def call() -> Any:
        with Client(target, api_key=api_key, timeouts=QUICK) as client:
            return _method(client, method)(*args, **options)

    return await asyncio.to_thread(call)


def _method(client: Client | AsyncClient, name: str) -> Any:
    found: Any = client
    for part in name.split("."):
        found = getattr(found, part)
    return found


both = pytest.mark.parametrize("call", [asynchronously, in_a_thread])
"""The test's `call`: target, key, method, arguments."""
