"""How long a call may take and when it is tried again. Pure: the clock and the dice are given."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from onlinerlhf_client.exceptions import OnlineRLHFError


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Bounds of one call of the client, retries included."""

    total_seconds: float = 60.0
    """Of a call with all its retries; of `submit_many`, the longest time without a reply."""
    attempt_seconds: float = 20.0
    """Of one attempt of a call that answers at once."""
    first_delay_seconds: float = 0.1
    max_delay_seconds: float = 2.0


class Budget:
    """What is left of one call's time."""

    def __init__(
        self,
        timeouts: Timeouts,
        *,
        total_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._timeouts = timeouts
        self._total_seconds = timeouts.total_seconds if total_seconds is None else total_seconds
        self._clock = clock
        self._dice = dice
        self.renew()

    def renew(self) -> None:
        """There was progress: start again with the whole time and short delays."""
        self._ends_at = self._clock() + self._total_seconds
        self._num_failures = 0

    @property
    def remaining_seconds(self) -> float:
        """Until the call must have ended; never quite 0, because gRPC takes that for no deadline at all."""
        return max(self._ends_at - self._clock(), 0.001)

    @property
    def attempt_seconds(self) -> float:
        """The deadline of the next attempt."""
        return min(self._timeouts.attempt_seconds, self.remaining_seconds)

    def has_time_for(self, seconds: float) -> bool:
        """Whether a wait that the gateway asked for surely ends, chance included, before the time is up."""
        return seconds + self._timeouts.max_delay_seconds < self.remaining_seconds

    def delay_after(self, error: OnlineRLHFError) -> float | None:
        """Seconds to wait before the next attempt: doubled each time, and half of it by chance. None: give up.

        Where the gateway says how long to wait, that comes on top: not all who were told so come back at once.
        """
        if not error.retryable:
            return None
        longest = min(self._timeouts.max_delay_seconds, self._timeouts.first_delay_seconds * 2.0**self._num_failures)
        delay = (error.retry_after_seconds or 0.0) + longest * (0.5 + 0.5 * self._dice())
        self._num_failures += 1
        return delay if delay < self.remaining_seconds else None
