"""Gateways for clients to talk to."""

from collections.abc import AsyncIterator

import grpc
import pytest

from clients.fake_gateway import FakeGateway

# The real gateway's fixtures.
from integration.gateway.conftest import make_key, model_dir, rollout, start_gateway, unused_port
from onlinerlhf.v1 import gateway_pb2_grpc

__all__ = ["fake_gateway", "make_key", "model_dir", "rollout", "start_gateway", "unused_port"]


@pytest.fixture
async def fake_gateway() -> AsyncIterator[FakeGateway]:
    """Listens on a port of its own."""
    fake = FakeGateway()
    server = grpc.aio.server()
    gateway_pb2_grpc.add_GatewayServiceServicer_to_server(fake, server)
    fake.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield fake
    await server.stop(None)
