"""What still works while Redis is away: production keys, for a while, under limits that this process keeps alone."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from onlinerlhf.core.errors import Unavailable
from onlinerlhf.gateway.access.buckets import Bucket, Metered, Refusal, refusal_of, settled, spent

MAX_ACCOUNTS: Final = 20_000
"""Of keys, users and organisations together; when so many are busy, further ones are refused."""
_SWEEP_MICROS: Final = 1_000_000


class RedisAway(Unavailable):
    """Keys and limits cannot be looked up now. Clients see `unavailable`."""

    reason = "unavailable"

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


@dataclass(slots=True)
class _Account:
    bucket: Bucket
    leases: dict[str, int] = field(default_factory=dict)
    """Request -> microsecond at which its lease ends."""

    def is_idle(self, metered: Metered, now: int) -> bool:
        """Whether a new account would be the same."""
        return self.bucket.at(metered.limits, now).is_full and all(end <= now for end in self.leases.values())


class LocalMeter:
    """The same limits in this process. Starts with full buckets, so n gateways together grant up to n times as much."""

    def __init__(self, *, lease_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_micros = round(lease_seconds * 1e6)
        self._clock = clock
        self._accounts: dict[tuple[str, str], tuple[Metered, _Account]] = {}
        self._next_sweep = 0

    def reserve(self, dimensions: Sequence[Metered], request_id: str, num_tokens: int) -> Refusal | None:
        """All or nothing. Raises RedisAway where there are too many accounts."""
        now = round(self._clock() * 1e6)
        self._make_room(len(dimensions), now)
        accounts = [self._account(metered, now) for metered in dimensions]
        if request_id in accounts[0].leases:
            return None
        refusals = [
            refusal
            for metered, account in zip(dimensions, accounts, strict=True)
            if (refusal := refusal_of(metered, account.bucket, list(account.leases.values()), num_tokens, now))
        ]
        if refusals:
            return max(refusals, key=lambda refusal: refusal.wait_micros)
        for metered, account in zip(dimensions, accounts, strict=True):
            account.bucket = spent(account.bucket, metered.limits, num_tokens, now)
            account.leases = {request: end for request, end in account.leases.items() if end > now}
            account.leases[request_id] = now + self._lease_micros
        return None

    def settle(self, dimensions: Sequence[Metered], request_id: str, num_refunded: int) -> bool:
        """False where it was settled before, or its lease has ended."""
        now = round(self._clock() * 1e6)
        found = [self._accounts.get((metered.dimension, metered.subject)) for metered in dimensions]
        if found[0] is None or request_id not in found[0][1].leases:
            return False
        for metered, entry in zip(dimensions, found, strict=True):
            if entry is not None:
                entry[1].leases.pop(request_id, None)
                entry[1].bucket = settled(entry[1].bucket, metered.limits, num_refunded, now)
        return True

    def _account(self, metered: Metered, now: int) -> _Account:
        name = (str(metered.dimension), metered.subject)
        if name not in self._accounts:
            self._accounts[name] = (metered, _Account(bucket=Bucket(at_micros=now)))
        return self._accounts[name][1]

    def _make_room(self, num: int, now: int) -> None:
        if len(self._accounts) + num <= MAX_ACCOUNTS:
            return
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_MICROS
            self._accounts = {name: each for name, each in self._accounts.items() if not each[1].is_idle(each[0], now)}
        if len(self._accounts) + num > MAX_ACCOUNTS:
            raise RedisAway("too many users at once while Redis is away", retry_after_seconds=_SWEEP_MICROS / 1e6)
