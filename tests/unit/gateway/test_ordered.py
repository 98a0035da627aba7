import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from onlinerlhf.gateway.requests.ordered import at_hand, in_order


async def numbers(num: int) -> AsyncIterator[int]:
    for number in range(num):
        yield number


async def test_results_come_in_the_order_of_the_items_whatever_their_pace() -> None:
    gates = [asyncio.Event() for _ in range(3)]

    async def act(item: int) -> int:
        await gates[item].wait()
        if item > 0:
            gates[item - 1].set()
        return item * 10

    gates[2].set()
    assert [result async for result in in_order(numbers(3), act, num_at_once=3)] == [0, 10, 20]


async def test_no_more_than_the_bound_are_in_work() -> None:
    running = peak = 0

    async def act(item: int) -> int:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0)
        running -= 1
        return item

    results = [result async for result in in_order(numbers(20), act, num_at_once=4)]
    assert results == list(range(20))
    assert peak <= 4


async def test_a_result_does_not_wait_for_the_next_item() -> None:
    never = asyncio.Event()

    async def source() -> AsyncIterator[int]:
        yield 1
        await never.wait()

    async def act(item: int) -> int:
        return item

    async with aclosing(in_order(source(), act, num_at_once=2)) as results:
        assert await asyncio.wait_for(anext(results), 5) == 1


async def test_closing_early_cancels_what_is_in_work() -> None:
    cancelled: list[int] = []

    async def act(item: int) -> int:
        if item == 0:
            return item
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(item)
            raise
        return item

    async with aclosing(in_order(numbers(3), act, num_at_once=3)) as results:
        assert await anext(results) == 0
        await asyncio.sleep(0)
    assert cancelled == [1, 2]


async def test_an_error_ends_the_whole() -> None:
    async def act(item: int) -> int:
        raise ArithmeticError("broken")

    with pytest.raises(ArithmeticError):
        [result async for result in in_order(numbers(3), act, num_at_once=2)]


async def test_a_broken_source_is_an_error_after_the_results_before_it() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        raise ConnectionResetError("gone")

    async def act(item: int) -> int:
        return item

    results = in_order(source(), act, num_at_once=2)
    assert await anext(results) == 1
    with pytest.raises(ConnectionResetError):
        await anext(results)


async def test_what_came_meanwhile_is_taken_together_up_to_the_bound() -> None:
    has_all_come = asyncio.Event()

    async def source() -> AsyncIterator[int]:
        yield 0
        await asyncio.sleep(0.01)
        for number in range(1, 6):
            yield number
        has_all_come.set()

    taken: list[list[int]] = []
    async with aclosing(at_hand(source(), max_count=3)) as lots:
        async for lot in lots:
            taken.append(lot)
            if len(taken) == 1:
                # Three are read ahead while this one is in work.
                await asyncio.sleep(0.05)
    assert taken == [[0], [1, 2, 3], [4, 5]] and has_all_come.is_set()


async def test_an_item_at_hand_does_not_wait_for_the_next() -> None:
    more = asyncio.Event()

    async def source() -> AsyncIterator[int]:
        yield 1
        await more.wait()
        yield 2

    async with aclosing(at_hand(source(), max_count=8)) as lots:
        assert await asyncio.wait_for(anext(lots), 1) == [1]
        more.set()
        assert await asyncio.wait_for(anext(lots), 1) == [2]


async def test_what_the_source_raises_comes_after_what_it_gave() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        raise ValueError("broken")

    lots = at_hand(source(), max_count=8)
    assert await anext(lots) == [1]
    with pytest.raises(ValueError, match="broken"):
        await anext(lots)


async def test_closing_leaves_no_task_behind() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    lots = at_hand(source(), max_count=2)
    assert await anext(lots) == [1]
    await lots.aclose()
    assert asyncio.all_tasks() == before
