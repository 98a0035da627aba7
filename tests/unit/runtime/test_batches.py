"""Many callers, one trip: each hears what it would have heard alone."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import hiredis
import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from onlinerlhf.runtime.batches import MAX_TRIPS, TRIP_BYTES, Batcher
from onlinerlhf.runtime.redis import Script, command

Command = tuple[str, ...]


class FakeRedis:
    """Replies to a command with its own words, unless told otherwise, and remembers the trips."""

    def __init__(self) -> None:
        self.connection_pool = self
        self.response_callbacks: Mapping[str, Any] = {"COUNT": len}
        self.trips: list[list[Command]] = []
        self.replies: dict[str, ResponseError] = {}
        self.failure: Exception | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.num_connections = 0

    async def get_connection(self) -> "FakeConnection":
        self.num_connections += 1
        return FakeConnection(self)

    async def release(self, connection: "FakeConnection") -> None:
        self.num_connections -= 1


class FakeConnection:
    """Of a FakeRedis."""

    def __init__(self, redis: FakeRedis) -> None:
        self._redis = redis
        self._unread: deque[Command] = deque()

    async def send_packed_command(self, packed: bytes) -> None:
        reader = hiredis.Reader(encoding="utf-8")
        reader.feed(packed)
        while (words := reader.gets()) is not False:
            self._unread.append(tuple(words))
        self._redis.trips.append(list(self._unread))

    async def read_response(self, *, disable_decoding: bool, timeout: float) -> Any:  # noqa: ASYNC109 - as redis-py's
        await self._redis.may_answer.wait()
        if self._redis.failure is not None:
            raise self._redis.failure
        words = self._unread.popleft()
        if words[0] in self._redis.replies:
            raise self._redis.replies[words[0]]
        return words


@pytest.fixture
def redis() -> FakeRedis:
    return FakeRedis()


@pytest.fixture
async def batcher(redis: FakeRedis) -> AsyncIterator[Batcher]:
    batcher = Batcher(cast(Redis, redis))
    yield batcher
    await batcher.aclose()
    assert redis.num_connections == 0


async def test_commands_of_one_turn_are_one_trip_and_each_caller_gets_its_own_reply(
    batcher: Batcher, redis: FakeRedis
) -> None:
    replies = await asyncio.gather(*(batcher.execute_command("GET", number) for number in range(3)))
    assert replies == [("GET", "0"), ("GET", "1"), ("GET", "2")]
    assert await batcher.execute_command("GET", 3) == ("GET", "3")
    assert [len(trip) for trip in redis.trips] == [3, 1]


async def test_a_reply_is_shown_as_the_client_shows_it(batcher: Batcher) -> None:
    assert await batcher.execute_command("COUNT", "a", "b") == 3


async def test_what_is_asked_for_during_a_trip_goes_out_with_the_next(batcher: Batcher, redis: FakeRedis) -> None:
    redis.may_answer.clear()
    calls = [asyncio.create_task(batcher.execute_command("GET", 0))]
    for number in range(1, 10):
        await asyncio.sleep(0)
        calls.append(asyncio.create_task(batcher.execute_command("GET", number)))
    await asyncio.sleep(0.01)
    assert [len(trip) for trip in redis.trips] == [1]
    redis.may_answer.set()
    assert await asyncio.gather(*calls) == [("GET", str(number)) for number in range(10)]
    assert [len(trip) for trip in redis.trips] == [1, 9]


async def test_much_at_once_takes_several_trips_side_by_side_and_no_more_than_the_bound(
    batcher: Batcher, redis: FakeRedis
) -> None:
    redis.may_answer.clear()
    big = "x" * TRIP_BYTES
    calls = [asyncio.create_task(batcher.execute_command("SET", number, big)) for number in range(MAX_TRIPS + 8)]
    await asyncio.sleep(0.01)
    assert len(redis.trips) == redis.num_connections == MAX_TRIPS
    redis.may_answer.set()
    assert [reply[1] for reply in await asyncio.gather(*calls)] == [str(number) for number in range(MAX_TRIPS + 8)]


async def test_an_error_reply_is_for_the_caller_whose_command_it_was(batcher: Batcher, redis: FakeRedis) -> None:
    redis.replies["BAD"] = ResponseError("WRONGTYPE")
    calls = [batcher.execute_command(name) for name in ("GET", "BAD", "SET")]
    replies = await asyncio.gather(*calls, return_exceptions=True)
    assert (replies[0], replies[2]) == (("GET",), ("SET",))
    assert isinstance(replies[1], ResponseError)
    assert len(redis.trips) == 1


async def test_a_script_the_server_does_not_know_is_sent_whole_and_its_neighbours_do_not_notice(
    batcher: Batcher, redis: FakeRedis
) -> None:
    redis.replies["EVALSHA"] = NoScriptError("NOSCRIPT")
    client = cast(Redis, batcher)
    script, single = Script("return 1").run(client, ["k"], [2]), command(client, "GET", "x")
    assert list(await asyncio.gather(script, single)) == [("EVAL", "return 1", "1", "k", "2"), ("GET", "x")]
    assert [len(trip) for trip in redis.trips] == [2, 1]


@pytest.mark.parametrize("failure", [RedisConnectionError("gone"), ConnectionResetError("gone"), ValueError("a bug")])
async def test_what_fails_a_trip_reaches_every_caller_and_the_next_trip_is_a_new_one(
    batcher: Batcher, redis: FakeRedis, failure: Exception
) -> None:
    redis.failure = failure
    calls = [batcher.execute_command("GET") for _ in range(3)]
    async with asyncio.timeout(5):
        assert await asyncio.gather(*calls, return_exceptions=True) == [failure] * 3
    redis.failure = None
    assert await batcher.execute_command("GET") == ("GET",)


async def test_a_caller_that_is_cancelled_leaves_the_others_their_replies(batcher: Batcher, redis: FakeRedis) -> None:
    redis.may_answer.clear()
    first, second = (asyncio.create_task(batcher.execute_command("GET", number)) for number in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0)
    redis.may_answer.set()
    assert await second == ("GET", "1")
    assert first.cancelled() and len(redis.trips) == 1


async def test_a_caller_cancelled_before_the_trip_does_not_disturb_it(batcher: Batcher) -> None:
    first, second = (asyncio.create_task(batcher.execute_command("GET", number)) for number in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == ("GET", "1")


async def test_whoever_waits_when_it_is_closed_is_told_and_whoever_comes_later_too(redis: FakeRedis) -> None:
    batcher = Batcher(cast(Redis, redis))
    redis.may_answer.clear()
    calls = [asyncio.create_task(batcher.execute_command("GET", number)) for number in range(2)]
    await asyncio.sleep(0.01)
    calls.append(asyncio.create_task(batcher.execute_command("GET", 2)))
    await asyncio.sleep(0)
    await batcher.aclose()
    async with asyncio.timeout(5):
        replies = await asyncio.gather(*calls, batcher.execute_command("GET", 3), return_exceptions=True)
    assert [type(reply) for reply in replies] == [ConnectionError] * 4
    assert redis.num_connections == 0
