"""What tests of the HTTP front need of a running gateway."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from integration.gateway.conftest import Gateway

MODEL = "policy"
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
HELLO: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """Where it listens, and a key that it takes."""

    address: str
    key: str

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def client(self, key: str | None = None) -> httpx.AsyncClient:
        """With this key, or with the front's own."""
        headers = {"Authorization": f"Bearer {self.key if key is None else key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=10)


async def front_of(gateway: "Gateway") -> Front:
    """The gateway's front, once it listens."""
    front = Front(address=gateway.http, key=gateway.api_key)
    async with front.client() as http:
        for _ in range(500):
            try:
                if (await http.get("/healthz")).status_code == 200:
                    return front
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.01)
    pytest.fail("waited 5 s for the HTTP front")
