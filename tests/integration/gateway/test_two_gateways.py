"""Two gateway processes on one Redis: quotas, caps, keys and receipts are those of the run, not of a replica."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from integration.gateway.gateway_process import UNLIMITED, GatewayProcess, gateway_process
from onlinerlhf.gateway.access.callers import KeyClass, Limits
from onlinerlhf.gateway.access.identity import HashKey
from onlinerlhf.gateway.access.key_format import parse
from onlinerlhf.gateway.access.keys import KeyStore
from onlinerlhf.gateway.access.quotas import Quotas
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.redis import command
from onlinerlhf.v1 import gateway_pb2, gateway_pb2_grpc
from redis_servers import RedisServer

if TYPE_CHECKING:
    from integration.gateway.conftest import FakeRollout, MakeKey

pytestmark = pytest.mark.timeout(180)

CALL_SECONDS = 60.0
StartPair = Callable[..., Awaitable["tuple[GatewayProcess, GatewayProcess]"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Of one call."""

    code: grpc.StatusCode
    reason: str = ""
    retry_after_seconds: float = 0.0
    sample_id: str = ""
    replayed: bool = False


class Caller:
    """One connection to a gateway. Nothing is tried again."""

    def __init__(self, target: str, api_key: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.insecure_channel(target, options=options)
        self._stub: Any = gateway_pb2_grpc.GatewayServiceStub(self._channel)
        self._metadata = [("authorization", f"Bearer {api_key}")]

    async def submit(self, text: str, *, user_id: str = "ada", idempotency_key: str | None = None) -> Outcome:
        request = gateway_pb2.SubmitPromptRequest(
            user_id=user_id,
            text=text.encode(),
            idempotency_key=idempotency_key or text,
            consent=gateway_pb2.Consent(notice_version="1", shown_at_seconds=time.time()),
        )
        try:
            response = await self._stub.SubmitPrompt(request, timeout=CALL_SECONDS, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            return refusal(error)
        receipt = response.receipt
        return Outcome(code=grpc.StatusCode.OK, sample_id=receipt.sample_id, replayed=receipt.replayed)

    async def answer(self, text: str = "say hi.") -> Outcome:
        request = gateway_pb2.GenerateRequest(user_id="ada", text=text.encode(), max_tokens=2)
        sample_id = ""
        try:
            async for response in self._stub.Generate(request, timeout=CALL_SECONDS, metadata=self._metadata):
                if response.WhichOneof("event") == "receipt":
                    sample_id = response.receipt.sample_id
        except grpc.aio.AioRpcError as error:
            return refusal(error)
        return Outcome(code=grpc.StatusCode.OK, sample_id=sample_id)

    async def close(self) -> None:
        await self._channel.close()


def refusal(error: grpc.aio.AioRpcError) -> Outcome:
    trailing = {name: str(value) for name, value in error.trailing_metadata() or ()}
    return Outcome(
        code=error.code(),
        reason=trailing.get("onlinerlhf-reason", ""),
        retry_after_seconds=float(trailing.get("retry-after", 0)),
    )


@asynccontextmanager
async def callers(pair: Sequence[GatewayProcess], api_key: str, *, num: int = 2) -> AsyncIterator[list[Caller]]:
    """Connections, to one gateway and the other in turn."""
    made = [Caller(pair[number % 2].target, api_key) for number in range(num)]
    try:
        yield made
    finally:
        await asyncio.gather(*(caller.close() for caller in made))


def codes(outcomes: Iterable[Outcome]) -> Counter[str]:
    return Counter(outcome.code.name for outcome in outcomes)


@pytest.fixture
async def start_pair(
    run_config: RunConfig, model_dir: Path, rollout: "FakeRollout", tmp_path: Path
) -> AsyncIterator[StartPair]:
    """Starts two gateways of one run at once."""
    async with AsyncExitStack() as stack:

        async def start(run: RunConfig = run_config, **settings: Any) -> tuple[GatewayProcess, GatewayProcess]:
            async def replica(number: int) -> GatewayProcess:
                directory = tmp_path / f"gateway-{number}"
                directory.mkdir()
                return await stack.enter_async_context(
                    gateway_process(
                        directory, run, model_dir=model_dir, rollout_target=rollout.target, **UNLIMITED, **settings
                    )
                )

            first, second = await asyncio.gather(replica(0), replica(1))
            return first, second

        yield start


async def test_of_4000_tries_at_once_over_both_a_quota_of_1000_a_day_grants_exactly_1000(
    start_pair: StartPair, make_key: "MakeKey", client: Redis, keys: RunKeys
) -> None:
    pair = await start_pair(admit_wait_seconds=40)
    api_key = await make_key(limits=Limits(requests_per_day=1000))
    async with callers(pair, api_key, num=20) as connections:
        tries = (
            connections[number % 20].submit(f"{number} is the number of this prompt", user_id=f"user {number % 50}")
            for number in range(4000)
        )
        outcomes = await asyncio.gather(*tries)
    assert codes(outcomes) == {"OK": 1000, "RESOURCE_EXHAUSTED": 3000}
    refused = [outcome for outcome in outcomes if outcome.code is grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert all(0 < outcome.retry_after_seconds <= 86.4 for outcome in refused)
    quota = await Quotas(client, keys).of_key(await KeyStore(client, keys).get(key_id_of(api_key)))
    assert (quota.daily_requests_used, quota.left.requests_per_day) == (1000, 0)
    expositions = [await gateway.exposition() for gateway in pair]
    assert sum(refusals_counted(each) for each in expositions) == 3000


def key_id_of(api_key: str) -> str:
    text = parse(api_key)
    assert text is not None
    return text.key_id


def refusals_counted(exposition: str) -> int:
    line = 'onlinerlhf_gateway_limit_refusals_total{dimension="key",kind="daily_requests"} '
    return sum(int(float(each.removeprefix(line))) for each in exposition.splitlines() if each.startswith(line))


async def test_of_300_prompts_of_one_user_at_once_from_20_connections_200_are_kept_and_of_one_more_no_201(
    start_pair: StartPair, make_key: "MakeKey", client: Redis, keys: RunKeys
) -> None:
    pair = await start_pair()
    async with callers(pair, await make_key(), num=20) as connections:
        tries = (connections[number % 20].submit(f"{number} is the number of this prompt") for number in range(300))
        outcomes = await asyncio.gather(*tries)
        # What became of each is not told.
        assert codes(outcomes) == {"OK": 300}
        assert await kept(client, keys) == 200
        assert (await connections[0].submit("one more after all of these")).code is grpc.StatusCode.OK
        assert await kept(client, keys) == 200
    ledger = Ledger(client, keys)
    counts = await ledger.counts()
    assert counts == await ledger.audit()
    assert counts.imbalance == 0


async def kept(client: Redis, keys: RunKeys) -> int:
    """Of ada's prompts: those of the index, which must be those that the ledger has not dropped."""
    owner = (await HashKey(client, keys).digests()).owner("", "ada")
    index = {sample.decode() for sample in await command(client, "ZRANGE", keys.prompts_of(owner), 0, -1)}
    states = await Ledger(client, keys).states()
    assert {sample for sample, state in states.items() if not state.startswith("dropped")} == index
    return len(index)


async def test_a_revoked_key_is_refused_by_both_within_five_seconds(
    start_pair: StartPair, make_key: "MakeKey", client: Redis, keys: RunKeys
) -> None:
    pair = await start_pair()
    revoked, other = await make_key(key_class=KeyClass.PRODUCTION), await make_key(key_class=KeyClass.PRODUCTION)
    async with callers(pair, revoked) as connections, callers(pair, other) as bystanders:
        for caller in (*connections, *bystanders):
            assert (await caller.answer()).code is grpc.StatusCode.OK
        revoked_at = time.monotonic()
        await KeyStore(client, keys).revoke(key_id_of(revoked))
        seconds = await asyncio.gather(*(seconds_until_refused(caller, revoked_at) for caller in connections))
        assert max(seconds) < 5
        for caller in connections:
            assert (await caller.answer()).code is grpc.StatusCode.UNAUTHENTICATED
        for caller in bystanders:
            assert (await caller.answer()).code is grpc.StatusCode.OK


async def seconds_until_refused(caller: Caller, since: float) -> float:
    while (await caller.answer()).code is grpc.StatusCode.OK:  # noqa: ASYNC110 - across a socket
        await asyncio.sleep(0.05)
    return time.monotonic() - since


async def test_an_idempotency_key_means_one_prompt_on_whichever_replica(
    start_pair: StartPair, make_key: "MakeKey", client: Redis, keys: RunKeys
) -> None:
    pair = await start_pair()
    async with callers(pair, await make_key()) as (one, other):
        first = await one.submit("name three foods.", idempotency_key="k")
        again = await other.submit("name three foods.", idempotency_key="k")
        assert (again.sample_id, again.replayed) == (first.sample_id, True)
        changed = await other.submit("name three trees.", idempotency_key="k")
        assert (changed.code, changed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "idempotency_conflict")
        assert (await other.submit("name three trees.", user_id="bob", idempotency_key="k")).code is grpc.StatusCode.OK
        at_once = await asyncio.gather(
            *((one, other)[number % 2].submit("say it once.", idempotency_key="l") for number in range(40))
        )
    assert len({outcome.sample_id for outcome in at_once}) == 1
    assert Counter(outcome.replayed for outcome in at_once) == {True: 39, False: 1}
    assert len(await Ledger(client, keys).states()) == 3


async def test_without_redis_playground_is_refused_and_production_goes_on_within_its_limits_for_a_while(
    new_redis_server: Callable[..., RedisServer],
    start_pair: StartPair,
    make_key: "MakeKey",
    run_config: RunConfig,
) -> None:
    server = new_redis_server()
    run = RunConfig(id=run_config.id, redis_url=SecretStr(server.url))
    pair = await start_pair(run, serve_without_redis_seconds=4)
    playground = await make_key(run=run)
    limited = await make_key(run=run, key_class=KeyClass.PRODUCTION, limits=Limits(requests_per_day=10))
    wide = await make_key(run=run, key_class=KeyClass.PRODUCTION)
    async with callers(pair, playground) as players, callers(pair, limited) as limiteds, callers(pair, wide) as wides:
        for caller in (*players, *limiteds, *wides):
            assert (await caller.answer()).code is grpc.StatusCode.OK
        server.kill()
        killed_at = time.monotonic()
        refused, answers, submitted = await asyncio.gather(
            asyncio.gather(*(players[number % 2].answer() for number in range(20))),
            asyncio.gather(*(limiteds[0].answer() for _ in range(30))),
            players[1].submit("name three foods."),
        )
        assert {(each.code, each.reason) for each in (*refused, submitted)} == {
            (grpc.StatusCode.UNAVAILABLE, "unavailable")
        }
        assert all(outcome.retry_after_seconds > 0 for outcome in refused)
        # A full bucket of this process alone.
        assert codes(answers) == {"OK": 10, "RESOURCE_EXHAUSTED": 20}
        assert "onlinerlhf_gateway_local_grants_total 10.0" in await pair[0].exposition()
        seconds = await asyncio.gather(*(seconds_until_refused(caller, killed_at) for caller in wides))
        assert all(3 < each < 9 for each in seconds), seconds
        for caller in (*players, *limiteds, *wides):
            assert (await caller.answer()).code is grpc.StatusCode.UNAVAILABLE
        server.start()
        async with asyncio.timeout(20):
            for caller in (*players, *wides):
                while (await caller.answer()).code is not grpc.StatusCode.OK:  # noqa: ASYNC110 - across a socket
                    await asyncio.sleep(0.1)
        # Of the day's ten two were used before; what a replica granted alone it counted alone.
        assert codes([await limiteds[1].answer() for _ in range(9)]) == {"OK": 8, "RESOURCE_EXHAUSTED": 1}
