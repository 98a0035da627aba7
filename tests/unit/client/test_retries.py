import grpc

from onlinerlhf_client import Timeouts
from onlinerlhf_client.exceptions import from_status
from onlinerlhf_client.retries import Budget

AWAY = from_status(grpc.StatusCode.UNAVAILABLE, "", "away")
REFUSED = from_status(grpc.StatusCode.INVALID_ARGUMENT, "empty", "empty")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def budget(clock: Clock, *, total: float = 10.0, dice: float = 1.0) -> Budget:
    timeouts = Timeouts(total_seconds=total, attempt_seconds=4.0, first_delay_seconds=0.1, max_delay_seconds=1.0)
    return Budget(timeouts, clock=clock, dice=lambda: dice)


def test_delays_double_up_to_the_longest() -> None:
    left = budget(Clock())
    assert [left.delay_after(AWAY) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_chance_takes_away_up_to_half_of_a_delay() -> None:
    left = budget(Clock(), dice=0.0)
    assert [left.delay_after(AWAY) for _ in range(3)] == [0.05, 0.1, 0.2]


def test_a_refusal_is_not_retried() -> None:
    assert budget(Clock()).delay_after(REFUSED) is None


def test_nothing_is_retried_once_the_delay_would_outlast_the_time_left() -> None:
    clock = Clock()
    left = budget(clock)
    clock.now = 109.95
    assert left.delay_after(AWAY) is None


def test_an_attempt_never_lasts_longer_than_the_whole() -> None:
    clock = Clock()
    left = budget(clock)
    assert left.attempt_seconds == 4.0
    clock.now = 107.0
    assert left.attempt_seconds == 3.0
    clock.now = 120.0
    assert left.attempt_seconds == 0.001


def test_progress_renews_time_and_delays() -> None:
    clock = Clock()
    left = budget(clock)
    left.delay_after(AWAY)
    left.delay_after(AWAY)
    clock.now = 109.99
    left.renew()
    assert left.delay_after(AWAY) == 0.1
    assert left.attempt_seconds == 4.0
