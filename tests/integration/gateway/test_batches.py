"""Many callers, few trips to Redis, and each caller sees its own reply."""

import asyncio

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from onlinerlhf.runtime.batches import TRIP_BYTES, Batcher, run_all
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Script, command


async def test_each_of_many_callers_gets_its_own_reply_whatever_the_others_get(client: Redis, keys: RunKeys) -> None:
    batcher = Batcher(client)

    async def ask(number: int) -> object:
        if number % 10 == 0:
            return await batcher.execute_command("INCR", keys.key("text"))
        if number % 10 == 1:
            return await batcher.execute_command("NO_SUCH_COMMAND")
        return await batcher.execute_command("ECHO", f"reply {number}")

    await command(client, "SET", keys.key("text"), "no number")
    replies = await asyncio.gather(*(ask(number) for number in range(1000)), return_exceptions=True)
    for number, reply in enumerate(replies):
        if number % 10 > 1:
            assert reply == f"reply {number}".encode()
        else:
            assert isinstance(reply, ResponseError)
    await batcher.aclose()


async def test_commands_larger_than_a_trip_go_by_themselves(client: Redis) -> None:
    batcher = Batcher(client)
    texts = [bytes([65 + number]) * (number * TRIP_BYTES // 4) for number in range(12)]
    assert await asyncio.gather(*(batcher.execute_command("ECHO", text) for text in texts)) == texts
    await batcher.aclose()


async def test_a_script_that_redis_does_not_know_is_loaded_by_each_who_was_refused(client: Redis) -> None:
    batcher = Batcher(client)
    await command(client, "SCRIPT", "FLUSH")
    script = Script("return ARGV[1] * 2")
    assert await asyncio.gather(*(script.run(batcher, [], [number]) for number in range(20))) == list(range(0, 40, 2))  # type: ignore[arg-type]
    await batcher.aclose()


async def test_a_caller_that_gives_up_takes_nobody_elses_reply(client: Redis) -> None:
    batcher = Batcher(client)
    asked = [asyncio.create_task(batcher.execute_command("ECHO", str(number))) for number in range(50)]
    await asyncio.sleep(0)
    for task in asked[::2]:
        task.cancel()
    replies = await asyncio.gather(*asked, return_exceptions=True)
    assert replies[1::2] == [str(number).encode() for number in range(1, 50, 2)]
    assert all(isinstance(reply, asyncio.CancelledError) for reply in replies[::2])
    await batcher.aclose()


async def test_a_cut_connection_is_an_error_to_those_on_their_way_and_to_nobody_later(client: Redis) -> None:
    batcher = Batcher(client)
    waiting = asyncio.create_task(batcher.execute_command("BLPOP", "{no}such", 5))
    await asyncio.sleep(0.1)
    await command(client, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with pytest.raises(RedisConnectionError):
        await waiting
    assert await batcher.execute_command("ECHO", "here") == b"here"
    await batcher.aclose()


async def test_closing_tells_whoever_waits_that_the_connection_is_gone(client: Redis) -> None:
    batcher = Batcher(client)
    waiting = asyncio.create_task(batcher.execute_command("BLPOP", "{no}such", 5))
    await asyncio.sleep(0.1)
    behind = asyncio.create_task(batcher.execute_command("ECHO", "later"))
    await asyncio.sleep(0)
    await batcher.aclose()
    replies = await asyncio.gather(waiting, behind, return_exceptions=True)
    assert all(isinstance(reply, ConnectionError) for reply in replies)
    with pytest.raises(ConnectionError):
        await batcher.execute_command("ECHO", "after")


async def test_many_commands_of_one_caller_come_back_in_order_with_each_refusal_in_its_place(client: Redis) -> None:
    batcher = Batcher(client)
    commands: list[tuple[str, ...]] = [("ECHO", f"{number}" * 200) for number in range(300)]
    commands[7] = ("NO_SUCH_COMMAND",)
    replies = await batcher.execute_all(commands)
    assert isinstance(replies[7], ResponseError)
    assert [reply for number, reply in enumerate(replies) if number != 7] == [
        f"{number}".encode() * 200 for number in range(300) if number != 7
    ]
    assert await batcher.execute_all([]) == []
    await batcher.aclose()


async def test_many_runs_of_an_unknown_script_load_it_and_one_refusal_is_raised(client: Redis) -> None:
    batcher = Batcher(client)
    await command(client, "SCRIPT", "FLUSH")
    doubles = Script("return ARGV[1] * 2")
    calls: list[tuple[list[str], list[int]]] = [([], [number]) for number in range(20)]
    assert await run_all(batcher, doubles, calls) == list(range(0, 40, 2))  # type: ignore[arg-type]
    assert await run_all(client, doubles, calls) == list(range(0, 40, 2))
    with pytest.raises(ResponseError):
        await run_all(batcher, Script("return redis.error_reply('no')"), calls)  # type: ignore[arg-type]
    await batcher.aclose()
