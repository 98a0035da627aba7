"""Redis away, replies lost, streams broken: nothing doubled, nothing half done, and callers hear why."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from pydantic import SecretStr

from onlinerlhf.runtime import redis
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.v1 import gateway_pb2, gateway_pb2_grpc
from onlinerlhf_client import AsyncClient, Client, Submission, Timeouts, Unavailable
from redis_servers import RedisServer

if TYPE_CHECKING:
    from integration.gateway.conftest import StartGateway


class LosesReplies(gateway_pb2_grpc.GatewayServiceServicer):
    """Hands calls on to a gateway; the first replies are lost after the gateway has done its work."""

    def __init__(self, target: str, *, num_lost: int) -> None:
        self._stub: Any = gateway_pb2_grpc.GatewayServiceStub(grpc.aio.insecure_channel(target))
        self.num_lost = num_lost

    async def _lose(self, context: Any) -> None:
        if self.num_lost > 0:
            self.num_lost -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")

    async def SubmitPrompt(
        self, request: gateway_pb2.SubmitPromptRequest, context: Any
    ) -> gateway_pb2.SubmitPromptResponse:
        response: gateway_pb2.SubmitPromptResponse = await self._stub.SubmitPrompt(request)
        await self._lose(context)
        return response

    async def SubmitPrompts(self, request_iterator: Any, context: Any) -> AsyncIterator[gateway_pb2.SubmitPromptsReply]:
        num_replies = 0
        async for reply in self._stub.SubmitPrompts(request_iterator):
            num_replies += 1
            if num_replies == 3:
                await self._lose(context)
            yield reply

    async def Generate(
        self, request: gateway_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[gateway_pb2.GenerateResponse]:
        async for response in self._stub.Generate(request):
            if response.WhichOneof("event") == "token":
                await self._lose(context)
            yield response

    async def GetSample(self, request: gateway_pb2.GetSampleRequest, context: Any) -> gateway_pb2.GetSampleResponse:
        response: gateway_pb2.GetSampleResponse = await self._stub.GetSample(request)
        return response


@asynccontextmanager
async def losing(target: str, *, num_lost: int) -> AsyncIterator[str]:
    server = grpc.aio.server()
    gateway_pb2_grpc.add_GatewayServiceServicer_to_server(LosesReplies(target, num_lost=num_lost), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def num_admitted(run: RunConfig) -> int:
    connection = redis.connect(run)
    try:
        ledger = Ledger(connection, RunKeys(run.id))
        assert await ledger.counts() == await ledger.audit()
        return (await ledger.counts()).admitted
    finally:
        await connection.aclose()


async def test_a_prompt_whose_replies_were_lost_is_one_sample(
    start_gateway: "StartGateway", run_config: RunConfig
) -> None:
    gateway = await start_gateway()
    async with losing(gateway.target, num_lost=2) as target, AsyncClient(target) as user:
        assert (await user.submit("one", user_id="ada")).replayed
    assert await num_admitted(run_config) == 1


async def test_an_answer_lost_before_its_first_token_is_asked_for_again_and_is_one_sample(
    start_gateway: "StartGateway", run_config: RunConfig
) -> None:
    gateway = await start_gateway()
    async with losing(gateway.target, num_lost=2) as target, AsyncClient(target) as user:
        answer = await user.answer("one", user_id="ada", training_consent=True)
    assert answer.text == "Hi"
    assert answer.receipt is not None and answer.receipt.replayed
    assert await num_admitted(run_config) == 1


async def test_a_broken_stream_of_submissions_goes_on_where_it_broke(
    start_gateway: "StartGateway", run_config: RunConfig
) -> None:
    gateway = await start_gateway()
    prompts = [Submission(text=f"text {number}", user_id="ada") for number in range(10)]
    async with losing(gateway.target, num_lost=2) as target, AsyncClient(target) as user:
        results = [result async for result in user.submit_many(prompts, window=4)]
    assert [result.submission for result in results] == prompts
    assert len({result.unwrap().sample_id for result in results}) == 10
    assert await num_admitted(run_config) == 10


async def test_the_synchronous_client_survives_lost_replies_too(
    start_gateway: "StartGateway", run_config: RunConfig
) -> None:
    gateway = await start_gateway()
    prompts = [Submission(text=f"text {number}", user_id="ada") for number in range(10)]

    def use(target: str) -> None:
        with Client(target) as user:
            results = list(user.submit_many(prompts, window=4))
            assert [result.submission for result in results] == prompts
            assert all(result.unwrap().sample_id for result in results)
            assert user.submit("one", user_id="ada").sample_id
            assert user.answer("two", user_id="ada", training_consent=True).receipt is not None

    async with losing(gateway.target, num_lost=3) as target:
        await asyncio.to_thread(use, target)
    assert await num_admitted(run_config) == 12


async def test_with_nobody_there_the_client_gives_up_in_time(unused_port: Callable[[], int]) -> None:
    started = time.monotonic()
    async with AsyncClient(f"127.0.0.1:{unused_port()}", timeouts=Timeouts(total_seconds=1.0)) as user:
        with pytest.raises(Unavailable):
            await user.submit("one", user_id="ada")
    assert time.monotonic() - started < 2.0


async def test_redis_gone_for_a_while_delays_prompts_and_loses_none(
    start_gateway: "StartGateway", new_redis_server: Callable[..., RedisServer]
) -> None:
    server = new_redis_server()
    run = RunConfig(id="away", redis_url=SecretStr(server.url))
    gateway = await start_gateway(run=run)
    async with AsyncClient(gateway.target) as user:
        before = await user.submit("one", user_id="ada", idempotency_key="k1")
        server.kill()
        waiting = asyncio.create_task(user.submit("two", user_id="ada"))
        answer = await user.answer("three", user_id="ada", training_consent=True)
        await asyncio.sleep(1.0)
        assert not gateway.health.ready()
        redis_health = {part.name: part for part in gateway.health.components()}["redis"]
        assert not redis_health.ok and redis_health.reason
        assert not waiting.done()
        server.start()
        after = await waiting
        again = await user.submit("one", user_id="ada", idempotency_key="k1")
    assert answer.text == "Hi"
    assert answer.admission.not_admitted is not None
    assert answer.admission.not_admitted.reason == "unavailable"
    assert (again.sample_id, again.replayed) == (before.sample_id, True)
    assert after.sample_id != before.sample_id
    await gateway.health.wait_ready(5)
    assert await num_admitted(run) == 2


async def test_redis_gone_for_long_is_an_answer_within_the_deadline_and_delays_users_by_less_than_a_second(
    start_gateway: "StartGateway", new_redis_server: Callable[..., RedisServer]
) -> None:
    server = new_redis_server()
    run = RunConfig(id="away", redis_url=SecretStr(server.url))
    gateway = await start_gateway(run=run, admit_wait_seconds=0.5)
    server.kill()
    async with AsyncClient(gateway.target, timeouts=Timeouts(total_seconds=0.8)) as user:
        with pytest.raises(Unavailable) as caught:
            await user.submit("one", user_id="ada")
        assert "Redis" in str(caught.value)
        results = [result async for result in user.submit_many([Submission(text="", user_id="ada")])]
        assert results[0].error is not None and results[0].error.reason == "empty"
        started = time.monotonic()
        async with user.generate("one", user_id="ada", training_consent=True, timeout=5.0) as stream:
            await anext(stream)
            assert time.monotonic() - started < 1.0
    server.start()
    assert await num_admitted(run) == 0
