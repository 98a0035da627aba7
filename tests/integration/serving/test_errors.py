"""Errors become status codes on one side and errors again on the other; nothing else of an exception crosses."""

import logging
from collections.abc import AsyncIterator

import grpc
import pytest
from prometheus_client import REGISTRY

from integration.serving.support import SECRET, Running, running
from onlinerlhf.core import errors
from onlinerlhf.runtime.channels import map_error, open_channel
from onlinerlhf.v1 import gateway_pb2, gateway_pb2_grpc

CODES = [
    ("invalid", "INVALID_ARGUMENT", errors.InvalidInput, "empty"),
    ("malformed", "INVALID_ARGUMENT", errors.MalformedRecord, "malformed"),
    ("exists", "ALREADY_EXISTS", errors.AlreadyExists, "already_exists"),
    ("conflict", "FAILED_PRECONDITION", errors.IdempotencyConflict, "idempotency_conflict"),
    ("consent", "FAILED_PRECONDITION", errors.ConsentMissing, "no_consent"),
    ("not_found", "NOT_FOUND", errors.NotFound, "not_found"),
    ("limit", "RESOURCE_EXHAUSTED", errors.LimitReached, "limit_reached"),
    ("cap", "RESOURCE_EXHAUSTED", errors.LimitReached, "user_cap"),
    ("unavailable", "UNAVAILABLE", errors.Unavailable, "unavailable"),
    ("timeout", "UNAVAILABLE", errors.WaitTimeout, "wait_timeout"),
    ("weights", "DATA_LOSS", errors.WeightsRefused, "weights_refused"),
    ("checksum", "DATA_LOSS", errors.ChecksumMismatch, "checksum_mismatch"),
    ("base", "DATA_LOSS", errors.BaseMissing, "base_missing"),
    ("nan", "DATA_LOSS", errors.NonFiniteWeights, "non_finite_weights"),
    ("checkpoint", "INTERNAL", errors.CheckpointError, "checkpoint_error"),
    ("loss", "INTERNAL", errors.NonFiniteLoss, "non_finite_loss"),
]


@pytest.fixture
async def service() -> AsyncIterator[Running]:
    async with running() as service:
        yield service


async def failure(address: str, what: str, *, stream: bool) -> grpc.aio.AioRpcError:
    async with open_channel(address, retry=False) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        try:
            if stream:
                _ = [event async for event in stub.Generate(gateway_pb2.GenerateRequest(user_id=what), timeout=5)]
            else:
                await stub.SubmitPrompt(gateway_pb2.SubmitPromptRequest(user_id=what), timeout=5)
        except grpc.aio.AioRpcError as error:
            return error
    raise AssertionError(f"{what} did not fail")


@pytest.mark.parametrize("stream", [False, True])
async def test_each_error_has_its_code_and_comes_back_as_itself(service: Running, stream: bool) -> None:
    for what, code, kind, reason in CODES:
        error = await failure(service.address, what, stream=stream)
        assert error.code().name == code
        assert ("onlinerlhf-reason", reason) in tuple(error.trailing_metadata() or ())
        back = map_error(error, "submit")
        assert type(back) is kind
        assert str(back) == f"submit: {error.details()}"
        if isinstance(back, errors.InvalidInput):
            assert back.reason == reason


@pytest.mark.parametrize("stream", [False, True])
async def test_a_bug_tells_the_client_an_id_and_the_log_the_rest_but_nobody_the_text(
    service: Running, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        error = await failure(service.address, "bug", stream=stream)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert SECRET not in str(error.details())
    [record] = [record for record in caplog.records if record.message == "call failed"]
    error_id = str(record.__dict__["error_id"])
    assert error.details() == f"internal error {error_id}" and len(error_id) == 12
    assert type(map_error(error, "submit")) is errors.OnlineRLHFError


async def test_an_abort_by_hand_stays_what_it_is(service: Running) -> None:
    error = await failure(service.address, "abort", stream=False)
    assert (error.code().name, error.details()) == ("OUT_OF_RANGE", "by hand")
    assert isinstance(map_error(error, "submit"), errors.InvalidInput)


async def test_streams_that_go_well_arrive_whole_and_calls_are_counted(service: Running) -> None:
    async with open_channel(service.address) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        tokens = [
            event.token.text async for event in stub.Generate(gateway_pb2.GenerateRequest(user_id="fine"), timeout=5)
        ]

        async def requests() -> AsyncIterator[gateway_pb2.SubmitPromptRequest]:
            for i in range(50):
                yield gateway_pb2.SubmitPromptRequest(idempotency_key=str(i))

        replies = [reply.idempotency_key async for reply in stub.SubmitPrompts(requests(), timeout=5)]
    assert tokens == ["one", "two"]
    assert replies == [str(i) for i in range(50)]
    labels = {"method": "SubmitPrompts", "code": "OK"}
    assert (REGISTRY.get_sample_value("onlinerlhf_rpc_seconds_count", labels) or 0) >= 1


async def test_an_oversize_message_is_refused_with_a_code_that_says_so() -> None:
    async with running(max_message_bytes=2048) as service, open_channel(service.address) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.SubmitPrompt(gateway_pb2.SubmitPromptRequest(text=b"x" * 3000), timeout=5)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert isinstance(map_error(caught.value, "submit"), errors.LimitReached)


async def test_a_call_ends_at_its_deadline_and_one_without_gets_the_servers() -> None:
    async with running(max_call_seconds=0.3) as service, open_channel(service.address, retry=False) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.SubmitPrompt(gateway_pb2.SubmitPromptRequest(user_id="hang"), timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert isinstance(map_error(caught.value, "submit"), errors.WaitTimeout)
        async with grpc.aio.insecure_channel(service.address) as bare:
            stub = gateway_pb2_grpc.GatewayServiceStub(bare)
            with pytest.raises(grpc.aio.AioRpcError, match=r"SubmitPrompt took longer than 0\.3 s") as caught:
                await stub.SubmitPrompt(gateway_pb2.SubmitPromptRequest(user_id="hang"))
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            with pytest.raises(grpc.aio.AioRpcError, match="Generate took longer"):
                async for _ in stub.Generate(gateway_pb2.GenerateRequest(user_id="hang")):
                    pass


async def test_an_unavailable_call_is_tried_again_and_only_where_that_is_allowed(service: Running) -> None:
    service.servicer.num_failures_left = 2
    request = gateway_pb2.SubmitPromptRequest(user_id="flaky")
    async with open_channel(service.address) as channel:
        answer = await gateway_pb2_grpc.GatewayServiceStub(channel).SubmitPrompt(request, timeout=5)
    assert answer.receipt.sample_id == "s1"
    service.servicer.num_failures_left = 1
    assert (await failure(service.address, "flaky", stream=False)).code() is grpc.StatusCode.UNAVAILABLE
