"""DataService on a real socket: who may call it, and what it says."""

import json
from collections.abc import AsyncIterator

import grpc
import pytest
from redis.asyncio import Redis

from integration.owned_samples import ANN, HASH_KEY, OwnedSamples
from onlinerlhf.core.errors import PermissionDenied, Unauthenticated
from onlinerlhf.core.samples import Stage
from onlinerlhf.gateway.access.callers import ApiKey, KeyClass, Scope
from onlinerlhf.gateway.access.identity import HashKey
from onlinerlhf.gateway.data_service import DataServicer
from onlinerlhf.gateway.rights.erasure import Erasure
from onlinerlhf.runtime.interceptor import CallInterceptor
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Patience
from onlinerlhf.v1 import data_pb2, data_pb2_grpc

ACME_USER = {"organisation": "acme", "user_id": "ann"}


async def _authenticate(credential: str | None, *, scope: Scope) -> ApiKey:
    assert scope is Scope.ADMIN
    if credential not in ("operator", "of-acme", "of-other", "client"):
        raise Unauthenticated("a valid API key is required")
    if credential == "client":
        raise PermissionDenied("this key lacks the scope admin")
    return ApiKey(
        key_id="k" * 12,
        name=credential,
        key_class=KeyClass.PRODUCTION,
        organisation=credential.partition("of-")[2],
        scopes=frozenset({Scope.ADMIN}),
        created_at_seconds=1.0,
    )


async def _export(organisation: str, user_id: str) -> AsyncIterator[tuple[str, str]]:
    yield "withdrawal", json.dumps({"state": "none"})
    yield "prompt", json.dumps({"of": f"{organisation}/{user_id}"})


@pytest.fixture
async def stub(client: Redis, keys: RunKeys, patience: Patience) -> AsyncIterator["data_pb2_grpc.DataServiceAsyncStub"]:
    """Of a server of this test's run."""
    erasure = Erasure(client, keys, HashKey(client, keys, HASH_KEY), patience)
    server = grpc.aio.server(interceptors=[CallInterceptor(max_call_seconds=10)])
    data_pb2_grpc.add_DataServiceServicer_to_server(DataServicer(erasure, _export, _authenticate), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield data_pb2_grpc.DataServiceStub(channel)
    await server.stop(None)


def _as(credential: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {credential}"),)


async def test_an_operator_erases_and_verifies_a_user(
    stub: "data_pb2_grpc.DataServiceAsyncStub", client: Redis, keys: RunKeys
) -> None:
    samples = OwnedSamples(client, keys)
    await samples.put("a1", ANN, Stage.POOL)
    await samples.put_for_reuse("a2.1", ANN)
    before = await stub.VerifyErasure(data_pb2.VerifyErasureRequest(**ACME_USER), metadata=_as("operator"))
    assert not before.clean and before.num_left["records"] > 0
    reply = await stub.EraseUser(data_pb2.EraseUserRequest(**ACME_USER), metadata=_as("of-acme"))
    receipt = reply.receipt
    assert (receipt.num_samples_dropped, list(receipt.policy_versions), receipt.num_samples_in_training) == (1, [3], 0)
    assert receipt.num_removed["pool"] == 1 and len(receipt.receipt_id) == 32 and receipt.erased_at_seconds > 1.6e9
    after = await stub.VerifyErasure(data_pb2.VerifyErasureRequest(**ACME_USER), metadata=_as("operator"))
    assert after.clean and not after.num_left and list(after.policy_versions) == [3]
    assert after.num_keys_scanned > 0


async def test_an_operator_exports_a_user(stub: "data_pb2_grpc.DataServiceAsyncStub") -> None:
    call = stub.ExportUser(data_pb2.ExportUserRequest(**ACME_USER), metadata=_as("operator"))
    pieces = [(piece.kind, json.loads(piece.json)) async for piece in call]
    assert pieces == [("withdrawal", {"state": "none"}), ("prompt", {"of": "acme/ann"})]


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ((), grpc.StatusCode.UNAUTHENTICATED),
        ((("authorization", "Basic operator"),), grpc.StatusCode.UNAUTHENTICATED),
        (_as("client"), grpc.StatusCode.PERMISSION_DENIED),
        (_as("of-other"), grpc.StatusCode.PERMISSION_DENIED),
    ],
)
async def test_nobody_else_may(
    stub: "data_pb2_grpc.DataServiceAsyncStub",
    client: Redis,
    keys: RunKeys,
    metadata: tuple[tuple[str, str], ...],
    code: grpc.StatusCode,
) -> None:
    await OwnedSamples(client, keys).put("a1", ANN, Stage.POOL)
    for call in (
        stub.EraseUser(data_pb2.EraseUserRequest(**ACME_USER), metadata=metadata),
        stub.VerifyErasure(data_pb2.VerifyErasureRequest(**ACME_USER), metadata=metadata),
        stub.ExportUser(data_pb2.ExportUserRequest(**ACME_USER), metadata=metadata).read(),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is code
    assert await client.hget(keys.ledger_states, "a1") == b"pool"


@pytest.mark.parametrize("user_id", ["", "x" * 129, "line\nbreak"])
async def test_a_user_id_that_no_client_can_send_is_refused(
    stub: "data_pb2_grpc.DataServiceAsyncStub", user_id: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.EraseUser(data_pb2.EraseUserRequest(user_id=user_id), metadata=_as("operator"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
