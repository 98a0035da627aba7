"""What the tests of the limits share."""

import random

from redis.asyncio import Redis

from onlinerlhf.core.errors import LimitReached
from onlinerlhf.gateway.access.callers import ApiKey, Caller, KeyClass, Limits, Scope
from onlinerlhf.gateway.access.limit_defaults import LimitDefaults
from onlinerlhf.gateway.access.limit_scripts import limit_scripts
from onlinerlhf.gateway.access.limits import Meter, Reservation
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import command

START = 1_800_000_000_000_000
# A clock that stands where the test puts it.
TEST_CLOCK = f"""
local function clock() return {START} + tonumber(redis.call('GET', 'test_clock') or '0') end
"""
OWNER, TENANT = "a" * 32, "b" * 32


def caller(
    key_class: KeyClass = KeyClass.PLAYGROUND, *, key_id: str = "k", owner: str = OWNER, organisation: str = ""
) -> Caller:
    key = ApiKey(
        key_id=key_id,
        name="test",
        key_class=key_class,
        organisation=organisation,
        scopes=frozenset({Scope.GENERATE}),
        created_at_seconds=1.0,
    )
    return Caller(key=key, owner=owner, tenant=TENANT if organisation else owner)


def defaults(key: Limits, *, user: Limits | None = None, organisation: Limits | None = None) -> LimitDefaults:
    return LimitDefaults(
        classes=dict.fromkeys(KeyClass, key), user=user or Limits(), organisation=organisation or Limits()
    )


def frozen(client: Redis, keys: RunKeys, limits: LimitDefaults, *, lease_seconds: float = 180.0) -> Meter:
    return Meter(client, keys, limits, scripts=limit_scripts(TEST_CLOCK), lease_seconds=lease_seconds)


async def advance(client: Redis, seconds: float) -> None:
    await command(client, "SET", "test_clock", round(seconds * 1e6))


class Tries:
    """Names requests, and counts what was granted and what refused."""

    def __init__(self, meter: Meter, who: Caller) -> None:
        self.meter = meter
        self.who = who
        self.granted: list[Reservation] = []
        self.refusals: list[LimitReached] = []

    async def once(self, num_tokens: int = 1) -> None:
        request_id = f"r{random.getrandbits(64):x}"
        try:
            self.granted.append(await self.meter.reserve(self.who, num_tokens=num_tokens, request_id=request_id))
        except LimitReached as refusal:
            self.refusals.append(refusal)
