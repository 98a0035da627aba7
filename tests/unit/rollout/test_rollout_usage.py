"""Idle time and token rates, on a clock of the test's own."""

from onlinerlhf.rollout.usage import Usage


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_idle_time_is_counted_from_ready_on_and_only_with_nothing_in_flight() -> None:
    clock = Clock()
    usage = Usage(clock)
    clock.now = 150.0
    assert usage.idle_share == 0.0
    usage.start_clock()
    clock.now = 152.0  # 2 s idle
    with usage.request():
        clock.now = 154.0
        with usage.request():
            clock.now = 157.0
        assert usage.num_in_flight == 1
        clock.now = 158.0  # 6 s busy
    clock.now = 160.0  # 2 s idle

    assert usage.idle_share == 0.4
    assert usage.num_in_flight == 0


def test_the_token_rate_is_over_the_last_ten_seconds() -> None:
    clock = Clock()
    usage = Usage(clock)
    usage.tokens(500)
    clock.now = 105.0
    usage.tokens(100)
    assert usage.tokens_per_second == 60.0
    clock.now = 111.0
    assert usage.tokens_per_second == 10.0
    clock.now = 200.0
    assert usage.tokens_per_second == 0.0
    assert usage.num_tokens == 600
