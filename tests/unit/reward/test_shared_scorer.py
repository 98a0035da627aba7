"""One caller at a time, also when a caller stops waiting."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from onlinerlhf.reward.app import SharedScorer
from onlinerlhf.reward.engine import ScoreItem

ITEM = ScoreItem(prompt_token_ids=(1,), response_token_ids=(2,))


class SlowEngine:
    """Counts how many callers are in it."""

    version = "slow-1"

    def __init__(self) -> None:
        self.began = threading.Event()
        self.go_on = threading.Event()
        self.entered = 0
        self.inside = 0
        self.most_inside = 0

    def score(self, items: Sequence[ScoreItem]) -> list[float]:
        self.entered += 1
        self.began.set()
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        assert self.go_on.wait(10)
        self.inside -= 1
        return [1.0 for _ in items]


async def test_a_caller_that_stops_waiting_keeps_the_turn_until_its_pass_is_over() -> None:
    engine = SlowEngine()
    scorer = SharedScorer(engine)  # type: ignore[arg-type]
    first = asyncio.create_task(scorer.score([ITEM]), name="first")
    assert await asyncio.to_thread(engine.began.wait, 10)
    first.cancel()
    second = asyncio.create_task(scorer.score([ITEM]), name="second")
    await asyncio.sleep(0.05)
    assert engine.entered == 1
    engine.go_on.set()
    assert await second == [1.0]
    with pytest.raises(asyncio.CancelledError):
        await first
    assert engine.most_inside == 1
