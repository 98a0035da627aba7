"""Limits of a call: requests and tokens a minute and a day and answers under way, of its key, user and organisation.

    reserve   one script over all dimensions, all or nothing: a request, the most tokens it can use, and a lease
    settle    gives back what was not used, and ends the lease

A gateway that dies gives nothing back, but its leases end by themselves. While Redis is away production keys go on
under limits of this process (degraded.py), for a while; playground keys are refused.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from prometheus_client import Counter
from redis.asyncio import Redis
from redis.exceptions import RedisError

from onlinerlhf.core.errors import InvalidInput, LimitReached, OnlineRLHFError
from onlinerlhf.gateway.access.buckets import Kind, Metered, Refusal
from onlinerlhf.gateway.access.callers import Caller, KeyClass
from onlinerlhf.gateway.access.degraded import LocalMeter, RedisAway
from onlinerlhf.gateway.access.impatience import Impatience
from onlinerlhf.gateway.access.limit_defaults import LimitDefaults, defaults_key, dump_defaults, limit_keys
from onlinerlhf.gateway.access.limit_scripts import LimitScripts, limit_arguments, limit_scripts
from onlinerlhf.gateway.access.limit_words import check_fits, limit_reached
from onlinerlhf.runtime.batches import run_all
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import Argument, away_reason, command
from onlinerlhf.runtime.tasks import set_within

log = logging.getLogger(__name__)

T = TypeVar("T")

ASK_SECONDS: Final = 0.5
"""How long to try again where Redis cannot be reached."""
POLL_SECONDS: Final = 1.0
"""Between two looks at what is overdue, and whether Redis is back."""
AWAY_RETRY_SECONDS: Final = 2.0
"""Callers do not ask Redis again for so long after it gave no answer; longer than from one poll to the next."""
ANNOUNCE_SECONDS: Final = 10.0
MAX_OVERDUE: Final = 10_000
"""Settlings kept while Redis is away; the oldest go, and their leases end by themselves."""
_RETRY_PAUSE_SECONDS: Final = 0.05

REFUSALS = Counter(
    "onlinerlhf_gateway_limit_refusals",
    "Calls that a limit refused, by whose it is and its kind",
    ["dimension", "kind"],
)
LOCAL_GRANTS = Counter(
    "onlinerlhf_gateway_local_grants", "Calls let in under limits of this process alone while Redis was away"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What a call was granted; to be settled once it is over."""

    request_id: str
    num_tokens: int
    dimensions: tuple[Metered, ...]
    is_local: bool = False
    """Granted by this process while Redis was away."""


class Charge(NamedTuple):
    """A call that is over when it is let in: what it uses, and an id never used before."""

    caller: Caller
    num_tokens: int
    request_id: str


class _Settling(NamedTuple):
    dimensions: tuple[Metered, ...]
    request_id: str
    num_refunded: int


class Meter:
    """Any number of gateways share one set of limits."""

    def __init__(
        self,
        redis: Redis,
        keys: RunKeys,
        defaults: LimitDefaults,
        *,
        lease_seconds: float = 180.0,
        serve_without_redis_seconds: float = 300.0,
        scripts: LimitScripts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A lease must be longer than the longest answer: `answer_seconds` and a little more."""
        self._redis = redis
        self._keys = keys
        self._defaults = defaults
        self._lease_micros = round(lease_seconds * 1e6)
        self._serve_without_redis_seconds = serve_without_redis_seconds
        self._scripts = scripts or limit_scripts()
        self._clock = clock
        self._local = LocalMeter(lease_seconds=lease_seconds, clock=clock)
        self._away_since: float | None = None
        self._ask_again_at = 0.0
        self._impatience = Impatience()
        self._overdue: deque[_Settling] = deque(maxlen=MAX_OVERDUE)

    async def reserve(self, caller: Caller, *, num_tokens: int, request_id: str) -> Reservation:
        """One trip to Redis. `num_tokens`: prompt and most response tokens; `request_id`: never used before.

        Raises LimitReached with the time to wait, InvalidInput (`exceeds_quota`) where no waiting would help, and
        RedisAway. Nothing is held then.
        """
        dimensions = self._dimensions(caller, num_tokens)
        is_local = False
        try:
            wanted = Reservation(request_id=request_id, num_tokens=num_tokens, dimensions=dimensions)
            (refusal,) = await self._reserve_all([wanted], lease_micros=self._lease_micros)
        except RedisAway:
            if not self._may_serve_alone(caller):
                raise
            refusal, is_local = self._local.reserve(dimensions, request_id, num_tokens), True
        if refusal is not None:
            raise _counted(refusal)
        if is_local:
            LOCAL_GRANTS.inc()
        return Reservation(request_id=request_id, num_tokens=num_tokens, dimensions=dimensions, is_local=is_local)

    async def charge_all(self, wanted: Sequence[Charge]) -> list[OnlineRLHFError | None]:
        """Let in many calls that are over at once, in one trip: what each is refused for, or None. Nothing to settle.

        Raises RedisAway: without Redis none is let in.
        """
        outcomes: list[OnlineRLHFError | None] = [None] * len(wanted)
        granted: dict[int, Reservation] = {}
        for number, (caller, num_tokens, request_id) in enumerate(wanted):
            try:
                dimensions = self._dimensions(caller, num_tokens)
            except InvalidInput as error:
                outcomes[number] = error
            else:
                granted[number] = Reservation(request_id=request_id, num_tokens=num_tokens, dimensions=dimensions)
        replies = await self._reserve_all(list(granted.values()), lease_micros=0)
        for number, refusal in zip(granted, replies, strict=True):
            outcomes[number] = None if refusal is None else _counted(refusal)
        return outcomes

    async def settle(self, reservation: Reservation, *, num_tokens: int) -> None:
        """What the call used in the end; only the first settling of a reservation counts.

        While Redis is away it is noted, and done by `run` when Redis is back.
        """
        num_refunded, dimensions = reservation.num_tokens - num_tokens, reservation.dimensions
        if reservation.is_local:
            self._local.settle(dimensions, reservation.request_id, num_refunded)
            return
        await self._settle(_Settling(dimensions, reservation.request_id, num_refunded))

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`: do what could not be done while Redis was away, and keep in Redis what limits hold here."""
        announced_at = float("-inf")
        while not stop.is_set():
            with suppress(RedisAway):
                if self._away_since is not None or self._clock() - announced_at >= ANNOUNCE_SECONDS:
                    await self._watched(self._announce)
                    announced_at = self._clock()
                await self._settle_overdue()
            await set_within(stop, POLL_SECONDS)
        await self._settle_overdue()

    @property
    def is_behind(self) -> bool:
        """Whether Redis is away, or something is still to be settled."""
        return self._away_since is not None or bool(self._overdue)

    async def _announce(self) -> None:
        await command(self._redis, "SET", defaults_key(self._keys), dump_defaults(self._defaults))

    def _dimensions(self, caller: Caller, num_tokens: int) -> tuple[Metered, ...]:
        if num_tokens < 1:
            raise InvalidInput(f"a call uses at least one token, not {num_tokens}", reason="bad_num_tokens")
        dimensions = self._defaults.of(caller)
        for metered in dimensions:
            check_fits(metered, num_tokens)
        return dimensions

    async def _reserve_all(self, wanted: Sequence[Reservation], *, lease_micros: int) -> list[Refusal | None]:
        if self._clock() < self._ask_again_at:
            raise _away("Redis did not answer a moment ago")
        calls: list[tuple[list[str], list[Argument]]] = [
            (
                self._names(each.dimensions),
                [each.request_id, each.num_tokens, lease_micros, *limit_arguments(each.dimensions)],
            )
            for each in wanted
        ]
        try:
            replies = await self._watched(lambda: run_all(self._redis, self._scripts.reserve, calls))
        except (RedisAway, asyncio.CancelledError):
            # They may have been granted nevertheless; without a lease that settles nothing.
            self._overdue.extend(_Settling(each.dimensions, each.request_id, each.num_tokens) for each in wanted)
            raise
        return [_refusal(each.dimensions, reply) for each, reply in zip(wanted, replies, strict=True)]

    async def _settle_overdue(self) -> None:
        for _ in range(len(self._overdue)):
            if self._clock() < self._ask_again_at:
                return
            await self._settle(self._overdue.popleft())

    async def _settle(self, settling: _Settling) -> None:
        names, arguments = self._names(settling.dimensions), _settle_arguments(settling)
        try:
            if self._clock() < self._ask_again_at:
                raise _away("Redis did not answer a moment ago")
            await self._ask(lambda: self._scripts.settle.run(self._redis, names, arguments))
        except RedisAway:
            self._overdue.append(settling)

    async def _watched(self, call: Callable[[], Awaitable[T]]) -> T:
        """A call that shows whether Redis takes writes."""
        try:
            reply = await self._ask(call)
        except RedisAway as error:
            if self._away_since is None:
                self._away_since = self._clock()
                log.warning("limits are not shared now", extra={"reason": str(error)})
            self._ask_again_at = self._clock() + AWAY_RETRY_SECONDS
            raise
        if self._away_since is not None:
            away_seconds = round(self._clock() - self._away_since, 3)
            log.info("limits are shared again", extra={"away_seconds": away_seconds})
        self._away_since, self._ask_again_at = None, 0.0
        return reply

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """All these calls may be repeated, so a connection that Redis has left behind costs one more try."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + ASK_SECONDS
        while True:
            try:
                return await self._impatience(call)
            except (RedisError, OSError) as error:
                reason = away_reason(error)
                if reason is None:
                    raise
                if loop.time() + _RETRY_PAUSE_SECONDS >= give_up_at:
                    raise _away(reason) from None
                await asyncio.sleep(_RETRY_PAUSE_SECONDS)

    def _may_serve_alone(self, caller: Caller) -> bool:
        away_seconds = 0.0 if self._away_since is None else self._clock() - self._away_since
        return caller.key.key_class is KeyClass.PRODUCTION and away_seconds < self._serve_without_redis_seconds

    def _names(self, dimensions: tuple[Metered, ...]) -> list[str]:
        return [name for metered in dimensions for name in limit_keys(self._keys, metered.dimension, metered.subject)]


def _away(reason: str) -> RedisAway:
    return RedisAway(f"limits cannot be checked now: {reason}", retry_after_seconds=AWAY_RETRY_SECONDS)


def _settle_arguments(settling: _Settling) -> list[Argument]:
    return [settling.request_id, settling.num_refunded, *limit_arguments(settling.dimensions)]


def _refusal(dimensions: tuple[Metered, ...], reply: Any) -> Refusal | None:
    if not reply:
        return None
    number, kind, wait_micros = reply
    return Refusal(
        dimension=dimensions[int(number) - 1].dimension, kind=Kind(kind.decode("ascii")), wait_micros=int(wait_micros)
    )


def _counted(refusal: Refusal) -> LimitReached:
    REFUSALS.labels(refusal.dimension, refusal.kind).inc()
    return limit_reached(refusal)
