"""A client of a gateway that plants a canary in everything it may write, and remembers what it was told."""

import json
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest

from onlinerlhf.v1 import data_pb2_grpc, gateway_pb2, gateway_pb2_grpc

if TYPE_CHECKING:
    from onlinerlhf.v1.data_pb2_grpc import DataServiceAsyncStub
    from onlinerlhf.v1.gateway_pb2_grpc import GatewayServiceAsyncStub

Metadata = tuple[tuple[str, str | bytes], ...]

PROMPT, RESPONSE, CORRECTION = "zanzibar prompt", "zanzibar response", "zanzibar correction"
USER, ORGANISATION, IDEMPOTENCY = "zanzibar-user", "zanzibar-organisation", "zanzibar-idempotency"
OTHER = "zanzibar-other"
"""Wherever else a client may write something."""


@dataclass
class Client:
    """Calls that may fail, and what they were told."""

    channel: grpc.aio.Channel
    http: httpx.AsyncClient
    key: str
    told: list[str] = field(default_factory=list)

    def metadata(self, key: str | None = None) -> Metadata:
        return (
            ("authorization", f"Bearer {key or self.key}"),
            ("traceparent", OTHER),
            ("user-agent-suffix", OTHER),
            (f"x-{OTHER}", OTHER),
        )

    @property
    def gateway(self) -> "GatewayServiceAsyncStub":
        return gateway_pb2_grpc.GatewayServiceStub(self.channel)

    @property
    def data(self) -> "DataServiceAsyncStub":
        return data_pb2_grpc.DataServiceStub(self.channel)

    async def tried(self, call: Awaitable[Any]) -> str:
        """Whatever comes of it; the name of the code."""
        try:
            await call
        except grpc.aio.AioRpcError as error:
            self.told += [error.details() or "", repr(error.trailing_metadata())]
            return str(error.code().name)
        return "OK"

    async def refused(self, call: Awaitable[Any], code: str) -> None:
        """The call fails so."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        error = caught.value
        assert error.code().name == code, error
        self.told += [error.details() or "", repr(error.trailing_metadata()), repr(error.initial_metadata())]

    async def answer(self, key: str | None = None, **fields: Any) -> str:
        """The sample id."""
        request = gateway_pb2.GenerateRequest(**{"user_id": USER, "text": PROMPT.encode(), **fields})
        call = self.gateway.Generate(request, metadata=self.metadata(key), timeout=10)
        events = [event async for event in call]
        return str(events[0].receipt.sample_id)

    async def submit(self, key: str | None = None, **fields: Any) -> str:
        """The sample id."""
        response = await self.gateway.SubmitPrompt(submission(**fields), metadata=self.metadata(key), timeout=10)
        return str(response.receipt.sample_id)

    async def judge(self, **fields: Any) -> None:
        request = gateway_pb2.SubmitFeedbackRequest(**{"idempotency_key": f"{IDEMPOTENCY}-{len(fields)}", **fields})
        await self.gateway.SubmitFeedback(request, metadata=self.metadata(), timeout=10)

    async def post(self, path: str, status: int, body: Any, **headers: str) -> httpx.Response:
        """Over HTTP; a refusal is noted."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        first = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        reply = await self.http.post(path, content=content, headers={**first, **headers})
        assert reply.status_code == status, reply.text
        if status >= 400:
            self.told += [reply.text, repr(reply.headers)]
        return reply


def consent(**fields: Any) -> gateway_pb2.Consent:
    return gateway_pb2.Consent(**{"notice_version": "1", "shown_at_seconds": time.time() - 60, **fields})


def submission(**fields: Any) -> gateway_pb2.SubmitPromptRequest:
    given = {"user_id": USER, "text": PROMPT.encode(), "idempotency_key": IDEMPOTENCY, "consent": consent(), **fields}
    return gateway_pb2.SubmitPromptRequest(**given)
