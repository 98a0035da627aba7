"""What a worker has done and how much of the time it did nothing. Pure: time is injected."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_RATE_WINDOW_SECONDS = 10.0


class Usage:
    """Requests in flight, tokens generated and idle time, since `start_clock`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.num_in_flight = 0
        self.num_tokens = 0
        self._clock = clock
        self._started: float | None = None
        self._idle_since = 0.0
        self._idle_seconds = 0.0
        self._recent: deque[tuple[float, int]] = deque()

    def start_clock(self) -> None:
        """The worker is ready for the first time: idling counts from here."""
        if self._started is None:
            self._started = self._idle_since = self._clock()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Around one request."""
        if self.num_in_flight == 0 and self._started is not None:
            self._idle_seconds += self._clock() - self._idle_since
        self.num_in_flight += 1
        try:
            yield
        finally:
            self.num_in_flight -= 1
            if self.num_in_flight == 0:
                self._idle_since = self._clock()

    def tokens(self, count: int) -> None:
        """`count` tokens were sampled."""
        self.num_tokens += count
        self._recent.append((self._clock(), count))
        self._forget_old()

    @property
    def tokens_per_second(self) -> float:
        """Over the last ten seconds."""
        self._forget_old()
        return sum(count for _, count in self._recent) / _RATE_WINDOW_SECONDS

    @property
    def idle_share(self) -> float:
        """Share of the time since ready with no request in flight, 0 to 1."""
        seconds = self.observed_seconds
        idle = self._idle_seconds + (self._clock() - self._idle_since if self.num_in_flight == 0 else 0.0)
        return idle / seconds if seconds > 0 else 0.0

    @property
    def observed_seconds(self) -> float:
        """Time since the worker was ready for the first time."""
        return 0.0 if self._started is None else self._clock() - self._started

    def _forget_old(self) -> None:
        horizon = self._clock() - _RATE_WINDOW_SECONDS
        while self._recent and self._recent[0][0] < horizon:
            self._recent.popleft()
