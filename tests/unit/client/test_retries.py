import grpc

from onlinerlhf_client import OnlineRLHFError, Timeouts
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


def limited(seconds: float) -> OnlineRLHFError:
    return from_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "limit_reached", "why", retry_after_seconds=seconds)


def test_what_the_gateway_asks_for_comes_on_top_of_the_delay() -> None:
    left = budget(Clock())
    assert [left.delay_after(limited(3.0)) for _ in range(3)] == [3.1, 3.2, 3.4]


def test_chance_never_shortens_the_wait_that_the_gateway_asks_for() -> None:
    assert budget(Clock(), dice=0.0).delay_after(limited(3.0)) == 3.05


def test_a_wait_that_outlasts_the_time_left_is_not_begun() -> None:
    assert budget(Clock()).delay_after(limited(10.0)) is None


def test_a_limit_without_a_time_is_not_retried() -> None:
    assert budget(Clock()).delay_after(from_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "user_cap", "why")) is None


def test_there_is_time_only_for_a_wait_that_ends_before_the_deadline_even_with_bad_luck() -> None:
    left = budget(Clock())
    assert left.has_time_for(8.9)
    assert not left.has_time_for(9.0)
