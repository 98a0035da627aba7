"""How long to wait after a turn or a broken watch: a poll, less where something happens, more while things fail."""

import random
from typing import Final

from onlinerlhf.core.errors import OnlineRLHFError
from onlinerlhf.scaler.kube_errors import Conflict, retry_after

MAX_BACKOFF_SECONDS: Final = 30.0
CONFLICT_SECONDS: Final = 1.0
"""What was read is old; what is new can be read at once. A little jitter parts those who meet again and again."""


class Pace:
    """Doubles with each failure in a row, is jittered, and is never shorter than the API server asks for."""

    def __init__(self, *, base_seconds: float, max_seconds: float = MAX_BACKOFF_SECONDS) -> None:
        self._base = base_seconds
        self._max = max(max_seconds, base_seconds)
        self._failures = 0

    def fine(self) -> None:
        """The failures, if any, are over."""
        self._failures = 0

    def after(self, error: OnlineRLHFError | None) -> float:
        """Seconds to wait after this failure (None: one of our own making)."""
        if isinstance(error, Conflict):
            return min(CONFLICT_SECONDS, self._base) * random.uniform(0.5, 1.0)
        seconds: float = min(self._base * 2.0 ** min(self._failures, 16), self._max)
        self._failures += 1
        asked = (retry_after(error) or 0.0) if error is not None else 0.0
        return max(seconds * random.uniform(0.7, 1.0), asked * random.uniform(1.0, 1.2))
