"""Token buckets and leases in exact integers. Pure; the Lua in limit_scripts.py is the same arithmetic.

A bucket keeps what is *used*, which drains away continuously: with a limit of c a minute, c in 60 s. So a full bucket
is zero and need not be stored, and a limit can be changed at any time. A request or token is as many units as its
window has ticks, so that c units drain in a tick: everything stays a whole number, and nothing is lost to rounding.

    granted where   used + asked <= c        else in (used + asked - c) / c windows
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from onlinerlhf.gateway.access.callers import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How long it takes until what was used has flowed back."""

    num_ticks: int
    """Also the units of one request or token."""
    tick_micros: int

    def ticks(self, since: int, now: int) -> int:
        """Ticks between two microseconds. Counted on one grid, so that none is lost however often one asks."""
        return max(0, now // self.tick_micros - since // self.tick_micros)


MINUTE: Final = Window(num_ticks=60_000_000, tick_micros=1)
DAY: Final = Window(num_ticks=86_400_000, tick_micros=1_000)
"""In milliseconds: in units of a microsecond the largest limit would go beyond the 53 bits of Lua's numbers."""
CONCURRENCY_WAIT_MICROS: Final = 1_000_000
"""After which to try again where too many answers are under way; nobody knows when one of them ends."""


class Dimension(StrEnum):
    """Whose use is counted."""

    KEY = "key"
    USER = "user"
    ORGANISATION = "organisation"


class Kind(StrEnum):
    """What is counted."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"
    DAILY_REQUESTS = "daily_requests"
    DAILY_TOKENS = "daily_tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metered:
    """One whose use is counted, and what they may use."""

    dimension: Dimension
    subject: str
    """Key id, owner digest or tenant digest."""
    limits: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """What was used and has not drained away, in units, as it was at a moment."""

    at_micros: int
    requests: int = 0
    """Of a minute, as the next one."""
    tokens: int = 0
    daily_requests: int = 0
    daily_tokens: int = 0

    @property
    def is_full(self) -> bool:
        """Whether nothing is used: it need not be kept."""
        return not (self.requests or self.tokens or self.daily_requests or self.daily_tokens)

    def at(self, limits: Limits, now: int) -> "Bucket":
        """The bucket at a later moment."""
        micros, ticks_of_day = MINUTE.ticks(self.at_micros, now), DAY.ticks(self.at_micros, now)
        return Bucket(
            at_micros=now,
            requests=_drained(self.requests, micros, limits.requests_per_minute),
            tokens=_drained(self.tokens, micros, limits.tokens_per_minute),
            daily_requests=_drained(self.daily_requests, ticks_of_day, limits.requests_per_day),
            daily_tokens=_drained(self.daily_tokens, ticks_of_day, limits.tokens_per_day),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Which limit stands in the way longest, and how long."""

    dimension: Dimension
    kind: Kind
    wait_micros: int


def refusal_of(
    metered: Metered, bucket: Bucket, lease_ends: Sequence[int], num_tokens: int, now: int
) -> Refusal | None:
    """None: granted."""
    limits, used = metered.limits, bucket.at(metered.limits, now)
    waits = {
        Kind.REQUESTS: _wait(MINUTE, used.requests, 1, limits.requests_per_minute, now),
        Kind.TOKENS: _wait(MINUTE, used.tokens, num_tokens, limits.tokens_per_minute, now),
        Kind.DAILY_REQUESTS: _wait(DAY, used.daily_requests, 1, limits.requests_per_day, now),
        Kind.DAILY_TOKENS: _wait(DAY, used.daily_tokens, num_tokens, limits.tokens_per_day, now),
        Kind.CONCURRENCY: 0,
    }
    if limits.max_concurrent is not None and sum(end > now for end in lease_ends) >= limits.max_concurrent:
        waits[Kind.CONCURRENCY] = CONCURRENCY_WAIT_MICROS
    kind = max(waits, key=lambda each: waits[each])
    return Refusal(dimension=metered.dimension, kind=kind, wait_micros=waits[kind]) if waits[kind] > 0 else None


def spent(bucket: Bucket, limits: Limits, num_tokens: int, now: int) -> Bucket:
    """After a request that was granted. What has no limit is not counted."""
    used = bucket.at(limits, now)
    return Bucket(
        at_micros=now,
        requests=_charged(MINUTE, used.requests, 1, limits.requests_per_minute),
        tokens=_charged(MINUTE, used.tokens, num_tokens, limits.tokens_per_minute),
        daily_requests=_charged(DAY, used.daily_requests, 1, limits.requests_per_day),
        daily_tokens=_charged(DAY, used.daily_tokens, num_tokens, limits.tokens_per_day),
    )


def settled(bucket: Bucket, limits: Limits, num_refunded: int, now: int) -> Bucket:
    """After an answer that used fewer tokens than were reserved, or, where negative, more."""
    used = bucket.at(limits, now)
    return Bucket(
        at_micros=now,
        requests=used.requests,
        tokens=_charged(MINUTE, used.tokens, -num_refunded, limits.tokens_per_minute),
        daily_requests=used.daily_requests,
        daily_tokens=_charged(DAY, used.daily_tokens, -num_refunded, limits.tokens_per_day),
    )


def _drained(used: int, ticks: int, limit: int | None) -> int:
    return 0 if limit is None else max(0, used - ticks * limit)


def _charged(window: Window, used: int, number: int, limit: int | None) -> int:
    return 0 if limit is None else max(0, used + number * window.num_ticks)


def _wait(window: Window, used: int, asked: int, limit: int | None, now: int) -> int:
    """Microseconds until so much is there, to the end of a tick."""
    if limit is None:
        return 0
    over = used - (limit - asked) * window.num_ticks
    if over <= 0:
        return 0
    return (now // window.tick_micros - (-over // limit)) * window.tick_micros - now
