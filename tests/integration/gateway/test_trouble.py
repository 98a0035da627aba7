"""Redis away, replies lost, streams broken: nothing doubled, nothing half done, and callers hear why."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from pydantic import SecretStr

from integration.streams.support import eventually
from onlinerlhf.gateway.access.callers import KeyClass, Scope
from onlinerlhf.runtime import redis
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.v1 import gateway_pb2, gateway_pb2_grpc
from onlinerlhf_client import AsyncClient, Client, Consent, NotFound, Submission, Timeouts, Unavailable
from redis_servers import RedisServer

if TYPE_CHECKING:
    from integration.gateway.conftest import MakeKey, StartGateway

NOBODYS_KEY = "orlhf_pg_" + "0" * 50


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
        response: gateway_pb2.SubmitPromptResponse = await self._stub.SubmitPrompt(request, metadata=key_of(context))
        await self._lose(context)
        return response

    async def SubmitPrompts(self, request_iterator: Any, context: Any) -> AsyncIterator[gateway_pb2.SubmitPromptsReply]:
        num_replies = 0
        async for reply in self._stub.SubmitPrompts(request_iterator, metadata=key_of(context)):
            num_replies += 1
            if num_replies == 3:
                await self._lose(context)
            yield reply

    async def Generate(
        self, request: gateway_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[gateway_pb2.GenerateResponse]:
        async for response in self._stub.Generate(request, metadata=key_of(context)):
            if response.WhichOneof("event") == "token":
                await self._lose(context)
            yield response

    async def GetSample(self, request: gateway_pb2.GetSampleRequest, context: Any) -> gateway_pb2.GetSampleResponse:
        raise NotImplementedError

    async def SubmitFeedback(
        self, request: gateway_pb2.SubmitFeedbackRequest, context: Any
    ) -> gateway_pb2.SubmitFeedbackResponse:
        raise NotImplementedError

    async def WithdrawConsent(
        self, request: gateway_pb2.WithdrawConsentRequest, context: Any
    ) -> gateway_pb2.WithdrawConsentResponse:
        raise NotImplementedError


def key_of(context: Any) -> list[tuple[str, str]]:
    return [("authorization", value) for name, value in context.invocation_metadata() if name == "authorization"]


@asynccontextmanager
async def losing(target: str, *, num_lost: int) -> AsyncIterator[tuple[str, LosesReplies]]:
    server = grpc.aio.server()
    between = LosesReplies(target, num_lost=num_lost)
    gateway_pb2_grpc.add_GatewayServiceServicer_to_server(between, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", between
    finally:
        await server.stop(None)


async def num_admitted(run: RunConfig) -> int:
    connection = redis.connect(run)
    try:
        ledger = Ledger(connection, RunKeys(run.id))
        assert await ledger.counts() == await ledger.audit()
        assert (await ledger.counts()).imbalance == 0
        return (await ledger.counts()).admitted
    finally:
        await connection.aclose()


async def exactly_admitted(run: RunConfig, count: int) -> None:
    """Answered prompts are admitted a moment after their answer."""

    async def as_many() -> bool:
        return await num_admitted(run) >= count

    await eventually(as_many, seconds=5)
    assert await num_admitted(run) == count


def texts(count: int) -> list[Submission]:
    shown = Consent.shown_now("1")
    return [Submission(text=f"text {number}", user_id="ada", consent=shown) for number in range(count)]


async def test_a_prompt_whose_replies_were_lost_is_one_sample(
    start_gateway: "StartGateway", run_config: RunConfig
) -> None:
    gateway = await start_gateway()
    async with losing(gateway.target, num_lost=2) as (target, _), AsyncClient(target, api_key=gateway.api_key) as user:
        receipt = await user.submit("one", user_id="ada", consent=Consent.shown_now("1"))
    assert receipt.replayed
    assert await num_admitted(run_config) == 1


async def test_an_answer_lost_before_its_first_token_is_asked_for_again_and_is_one_sample(
    start_gateway: "StartGateway", run_config: RunConfig
) -> None:
    gateway = await start_gateway()
    async with losing(gateway.target, num_lost=2) as (target, _), AsyncClient(target, api_key=gateway.api_key) as user:
        answer = await user.answer("one", user_id="ada", consent=Consent.shown_now("1"))
    assert (answer.text, answer.receipt.replayed) == ("Hi", True)
    await exactly_admitted(run_config, 1)


async def test_a_broken_stream_of_submissions_goes_on_where_it_broke(
    start_gateway: "StartGateway", run_config: RunConfig
) -> None:
    gateway = await start_gateway()
    prompts = texts(10)
    async with losing(gateway.target, num_lost=2) as (target, _), AsyncClient(target, api_key=gateway.api_key) as user:
        results = [result async for result in user.submit_many(prompts, window=4)]
    assert [result.submission for result in results] == prompts
    assert len({result.unwrap().sample_id for result in results}) == 10
    assert await num_admitted(run_config) == 10


async def test_the_synchronous_client_survives_lost_replies_too(
    start_gateway: "StartGateway", run_config: RunConfig
) -> None:
    gateway = await start_gateway()
    prompts = texts(10)

    def use(target: str, between: LosesReplies) -> None:
        shown = Consent.shown_now("1")
        with Client(target, api_key=gateway.api_key) as user:
            results = list(user.submit_many(prompts, window=4))
            assert [result.submission for result in results] == prompts
            assert len({result.unwrap().sample_id for result in results}) == 10
            between.num_lost = 2
            assert user.submit("one", user_id="ada", consent=shown).replayed
            between.num_lost = 2
            assert user.answer("two", user_id="ada", consent=shown).receipt.replayed
            assert between.num_lost == 0

    async with losing(gateway.target, num_lost=2) as (target, between):
        await asyncio.to_thread(use, target, between)
    await exactly_admitted(run_config, 12)


async def test_with_nobody_there_the_client_gives_up_in_time(unused_port: Callable[[], int]) -> None:
    started = time.monotonic()
    timeouts = Timeouts(total_seconds=1.0)
    async with AsyncClient(f"127.0.0.1:{unused_port()}", api_key=NOBODYS_KEY, timeouts=timeouts) as user:
        with pytest.raises(Unavailable):
            await user.submit("one", user_id="ada", consent=Consent.shown_now("1"))
    assert time.monotonic() - started < 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Away:
    """A Redis of its own that a test takes away and gives back."""

    server: RedisServer
    run: RunConfig
    pid: int
    hangs: bool
    """It is there and says nothing, instead of being gone."""

    def take(self) -> None:
        if self.hangs:
            os.kill(self.pid, signal.SIGSTOP)
        else:
            self.server.kill()

    def give_back(self) -> None:
        if self.hangs:
            os.kill(self.pid, signal.SIGCONT)
        else:
            self.server.start()


@pytest.fixture(params=["gone", "hangs"])
async def away(request: pytest.FixtureRequest, new_redis_server: Callable[..., RedisServer]) -> AsyncIterator[Away]:
    server = new_redis_server()
    run = RunConfig(id="away", redis_url=SecretStr(server.url))
    connection = redis.connect(run)
    pid = int((await connection.info("server"))["process_id"])
    await connection.aclose()
    found = Away(server=server, run=run, pid=pid, hangs=request.param == "hangs")
    yield found
    if found.hangs:
        found.give_back()


async def test_redis_away_for_a_while_delays_prompts_and_loses_none(
    start_gateway: "StartGateway", make_key: "MakeKey", away: Away
) -> None:
    gateway = await start_gateway(run=away.run)
    production = await make_key(Scope.GENERATE, key_class=KeyClass.PRODUCTION, run=away.run)
    shown = Consent.shown_now("1")
    async with gateway.client() as playground, gateway.client(production) as service:
        before = await playground.submit("one", user_id="ada", consent=shown, idempotency_key="k1")
        assert (await service.answer("who are you", user_id="eve")).text == "Hi"
        away.take()
        submitting = asyncio.create_task(playground.submit("two", user_id="ada", consent=shown))
        asking = asyncio.create_task(playground.answer("three", user_id="ada", consent=shown))
        with pytest.raises(Unavailable) as refused:
            await playground.answer("four", user_id="bob", consent=shown, timeout=1.5)
        answer = await service.answer("five", user_id="eve", consent=shown)
        assert not gateway.health.ready()
        redis_health = {part.name: part for part in gateway.health.components()}["redis"]
        assert not redis_health.ok and redis_health.reason
        assert not submitting.done() and not asking.done()
        away.give_back()
        submitted, answered = await submitting, await asking
        again = await playground.submit("one", user_id="ada", consent=shown, idempotency_key="k1")
        if not away.hangs:
            # It was answered from memory; a Redis that hangs finds the receipt on its socket when it wakes.
            with pytest.raises(NotFound):
                await service.get_sample(answer.receipt.sample_id)
    assert (refused.value.reason, refused.value.retry_after_seconds) == ("unavailable", 2.0)
    assert (answer.text, answered.text) == ("Hi", "Hi")
    assert (again.sample_id, again.replayed) == (before.sample_id, True)
    assert len({before.sample_id, submitted.sample_id, answered.receipt.sample_id}) == 3
    await gateway.health.wait_ready(5)
    await exactly_admitted(away.run, 3)


async def test_redis_away_for_long_is_a_refusal_in_time_and_production_users_wait_less_than_a_second(
    start_gateway: "StartGateway", make_key: "MakeKey", away: Away, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    gateway = await start_gateway(run=away.run, admit_wait_seconds=0.5)
    production, unused = [await make_key(Scope.GENERATE, key_class=KeyClass.PRODUCTION, run=away.run) for _ in range(2)]
    shown = Consent.shown_now("1")
    hasty = gateway.client(timeouts=Timeouts(total_seconds=0.8))
    async with hasty as playground, gateway.client(production) as service, gateway.client(unused) as stranger:
        assert (await playground.answer("zero", user_id="ada")).text == "Hi"
        assert (await service.answer("zero", user_id="eve")).text == "Hi"
        away.take()
        for call in (playground.submit, playground.answer):
            started = time.monotonic()
            with pytest.raises(Unavailable):
                await call("one", user_id="ada", consent=shown)
            assert time.monotonic() - started < 1.0
        malformed = Submission(text="", user_id="ada", consent=shown)
        results = [result async for result in playground.submit_many([malformed])]
        assert results[0].error is not None and results[0].error.reason == "empty"
        for number in range(3):
            started = time.monotonic()
            async with service.generate(f"text {number}", user_id="eve", consent=shown, timeout=5.0) as stream:
                assert (await anext(stream)).text == "H"
                assert time.monotonic() - started < 1.0
                assert [token.text async for token in stream] == ["i"]
        with pytest.raises(Unavailable):
            await stranger.answer("one", user_id="eve", timeout=1.5)
        away.give_back()

        async def recorded() -> bool:
            return len([record for record in caplog.records if vars(record).get("outcome") == "completed"]) == 5

        # Answers while Redis was away are on record like all others.
        await eventually(recorded, seconds=10)
    assert "failed afterwards" not in {record.message for record in caplog.records}
    assert await num_admitted(away.run) == 0
