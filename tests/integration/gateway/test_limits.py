"""The meter's two scripts on real Redis servers."""

import asyncio
import random
import time

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from integration.gateway.limits_support import OWNER, START, Tries, advance, caller, defaults, frozen
from onlinerlhf.core.errors import InvalidInput, LimitReached
from onlinerlhf.gateway.access.buckets import DAY, MINUTE, Dimension, Refusal
from onlinerlhf.gateway.access.callers import Caller, Limits
from onlinerlhf.gateway.access.degraded import LocalMeter
from onlinerlhf.gateway.access.limit_defaults import LimitDefaults, limit_keys
from onlinerlhf.gateway.access.limits import Charge, Meter, Reservation
from onlinerlhf.runtime import redis
from onlinerlhf.runtime.batches import Batcher
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.redis import command
from redis_servers import redis_binaries

pytestmark = pytest.mark.parametrize("redis_binary", redis_binaries(), indirect=True)


@pytest.fixture(autouse=True)
async def _reset_clock(client: Redis) -> None:
    await command(client, "DEL", "test_clock")


async def test_of_4000_tries_at_once_over_two_clients_exactly_1000_are_granted(
    client: Redis, keys: RunKeys, run_config: RunConfig
) -> None:
    limits = defaults(Limits(requests_per_minute=1000))
    other = redis.connect(run_config)
    batchers = [Batcher(client), Batcher(other)]
    replicas = [Tries(frozen(batcher, keys, limits), caller()) for batcher in batchers]  # type: ignore[arg-type]
    await asyncio.gather(*(replicas[number % 2].once() for number in range(4000)))
    for batcher in batchers:
        await batcher.aclose()
    await other.aclose()
    assert sum(len(replica.granted) for replica in replicas) == 1000
    assert sum(len(replica.refusals) for replica in replicas) == 3000


async def test_on_redis_time_what_is_granted_is_the_bucket_and_what_flowed_back(client: Redis, keys: RunKeys) -> None:
    tries = Tries(Meter(client, keys, defaults(Limits(requests_per_minute=1000))), caller())
    started = time.monotonic()
    for _ in range(8):
        await asyncio.gather(*(tries.once() for _ in range(500)))
    seconds = time.monotonic() - started
    assert 1000 <= len(tries.granted) <= 1000 + seconds * 1000 / 60


async def test_of_400_at_once_exactly_as_many_as_may_be_under_way_are_granted(client: Redis, keys: RunKeys) -> None:
    tries = Tries(Meter(client, keys, defaults(Limits(max_concurrent=100))), caller())
    await asyncio.gather(*(tries.once() for _ in range(400)))
    assert len(tries.granted) == 100
    assert {refusal.retry_after_seconds for refusal in tries.refusals} == {1.0}
    assert str(tries.refusals[0]).startswith("key concurrency: ")
    await tries.meter.settle(tries.granted[0], num_tokens=1)
    await tries.once()
    assert len(tries.granted) == 101


async def test_after_the_time_that_a_refusal_names_it_is_granted_and_not_before(client: Redis, keys: RunKeys) -> None:
    tries = Tries(frozen(client, keys, defaults(Limits(tokens_per_minute=700))), caller())
    await tries.once(700)
    await tries.once(10)
    assert str(tries.refusals[0]).startswith("key tokens: ")
    assert tries.refusals[0].retry_after_seconds == 0.858  # 10/700 of a minute is 857,143 us
    await advance(client, 0.857142)
    await tries.once(10)
    assert len(tries.granted) == 1
    await advance(client, 0.858)
    await tries.once(10)
    assert len(tries.granted) == 2


async def test_of_4000_tries_in_a_day_of_1000_exactly_1000_are_granted(client: Redis, keys: RunKeys) -> None:
    tries = Tries(Meter(client, keys, defaults(Limits(), user=Limits(requests_per_day=1000))), caller())
    await asyncio.gather(*(tries.once() for _ in range(4000)))
    assert len(tries.granted) == 1000
    assert str(tries.refusals[0]).startswith("user daily requests: the limit of requests a day is reached; try again")
    assert 80 < (tries.refusals[0].retry_after_seconds or 0) <= 86.4


async def test_a_day_flows_back_over_a_day_beside_the_minutes(client: Redis, keys: RunKeys) -> None:
    limits = defaults(Limits(tokens_per_minute=600, tokens_per_day=1000))
    tries = Tries(frozen(client, keys, limits), caller())
    await tries.once(600)
    await advance(client, 60)
    await tries.once(600)
    assert str(tries.refusals[0]).startswith("key daily tokens: ")
    # After the minute 0.694 of the first 600 have flowed back: 199.306 are missing, of which one comes in 86.4 s.
    assert tries.refusals[0].retry_after_seconds == 17_220.0
    await advance(client, 17_279.999)
    await tries.once(600)
    assert len(tries.granted) == 1
    await advance(client, 17_280)
    await tries.once(600)
    assert len(tries.granted) == 2


@pytest.mark.parametrize(
    ("dimension", "limits"),
    [
        ("key", defaults(Limits(requests_per_minute=2))),
        ("user", defaults(Limits(), user=Limits(requests_per_minute=2))),
        ("organisation", defaults(Limits(), organisation=Limits(requests_per_minute=2))),
    ],
)
async def test_each_dimension_refuses_under_its_own_name(
    client: Redis, keys: RunKeys, dimension: str, limits: LimitDefaults
) -> None:
    tries = Tries(frozen(client, keys, limits), caller(organisation="acme"))
    for _ in range(3):
        await tries.once()
    assert len(tries.granted) == 2
    assert str(tries.refusals[0]).startswith(f"{dimension} requests: ")
    assert tries.refusals[0].retry_after_seconds == 30.0


async def test_users_of_one_key_have_their_own_limits_and_share_the_keys(client: Redis, keys: RunKeys) -> None:
    limits = defaults(Limits(requests_per_minute=3), user=Limits(requests_per_minute=2))
    meter = frozen(client, keys, limits)
    ada, bob = Tries(meter, caller(owner="1" * 32)), Tries(meter, caller(owner="2" * 32))
    for tries in (ada, ada, ada, bob, bob):
        await tries.once()
    assert (len(ada.granted), len(bob.granted)) == (2, 1)
    assert str(ada.refusals[0]).startswith("user requests")
    assert str(bob.refusals[0]).startswith("key requests")


async def test_a_refusal_takes_nothing_from_the_dimensions_that_would_have_granted(
    client: Redis, keys: RunKeys
) -> None:
    limits = defaults(Limits(requests_per_minute=5), user=Limits(tokens_per_minute=10))
    meter = frozen(client, keys, limits)
    hungry = Tries(meter, caller(owner="1" * 32))
    for _ in range(20):
        await hungry.once(10)
    assert len(hungry.granted) == 1
    others = Tries(meter, caller(owner="2" * 32))
    for _ in range(5):
        await others.once(1)
    assert len(others.granted) == 4


async def test_what_can_never_be_granted_is_invalid_and_not_a_matter_of_time(client: Redis, keys: RunKeys) -> None:
    meter = frozen(client, keys, defaults(Limits(), user=Limits(tokens_per_minute=100)))
    with pytest.raises(InvalidInput, match="user tokens: this call needs 101, and the limit is 100") as refused:
        await meter.reserve(caller(), num_tokens=101, request_id="r")
    assert refused.value.reason == "exceeds_quota"
    await meter.reserve(caller(), num_tokens=100, request_id="r")
    daily = frozen(client, keys, defaults(Limits(tokens_per_day=100)))
    with pytest.raises(InvalidInput, match="key daily tokens: this call needs 101, and the limit is 100 tokens a day"):
        await daily.reserve(caller(), num_tokens=101, request_id="r")


@pytest.mark.parametrize("num_tokens", [0, -1])
async def test_a_call_of_no_tokens_is_invalid(client: Redis, keys: RunKeys, num_tokens: int) -> None:
    with pytest.raises(InvalidInput):
        await frozen(client, keys, defaults(Limits())).reserve(caller(), num_tokens=num_tokens, request_id="r")


async def test_settling_gives_back_what_was_not_used_once(client: Redis, keys: RunKeys) -> None:
    tries = Tries(frozen(client, keys, defaults(Limits(tokens_per_minute=100))), caller())
    await tries.once(60)
    await tries.once(40)
    await tries.meter.settle(tries.granted[0], num_tokens=10)
    for _ in range(3):
        await tries.meter.settle(tries.granted[0], num_tokens=0)
    await tries.once(51)
    assert len(tries.granted) == 2
    await tries.once(50)
    assert len(tries.granted) == 3


async def test_more_than_was_reserved_is_charged(client: Redis, keys: RunKeys) -> None:
    tries = Tries(frozen(client, keys, defaults(Limits(tokens_per_minute=60))), caller())
    await tries.once(30)
    await tries.meter.settle(tries.granted[0], num_tokens=90)
    await tries.once(1)
    assert tries.refusals[0].retry_after_seconds == 31.0


async def test_a_repeated_reservation_is_charged_once(client: Redis, keys: RunKeys) -> None:
    meter = frozen(client, keys, defaults(Limits(requests_per_minute=2)))
    for _ in range(5):
        await meter.reserve(caller(), num_tokens=1, request_id="same")
    await meter.reserve(caller(), num_tokens=1, request_id="other")
    with pytest.raises(LimitReached):
        await meter.reserve(caller(), num_tokens=1, request_id="third")


async def test_the_leases_of_a_gateway_that_died_end_by_themselves(client: Redis, keys: RunKeys) -> None:
    limits = defaults(Limits(max_concurrent=3))
    tries = Tries(frozen(client, keys, limits, lease_seconds=120), caller())
    for _ in range(4):
        await tries.once()
    assert len(tries.granted) == 3
    await advance(client, 119.9)
    await tries.once()
    assert len(tries.granted) == 3
    await advance(client, 120)
    for _ in range(4):
        await tries.once()
    assert len(tries.granted) == 6


async def test_what_is_kept_of_a_user_is_named_by_the_owner_and_expires(client: Redis, keys: RunKeys) -> None:
    limits = defaults(Limits(), user=Limits(requests_per_minute=60, tokens_per_minute=600, max_concurrent=5))
    meter = Meter(client, keys, limits, lease_seconds=100)
    reservation = await meter.reserve(caller(organisation="acme"), num_tokens=600, request_id="r")
    names = {name.decode() async for name in client.scan_iter(match=keys.key("*").replace("{", "[{]"))}
    assert {name for name in names if OWNER in name} == set(limit_keys(keys, Dimension.USER, OWNER))
    for name in names:
        assert 0 < await client.pttl(name) <= 101_000, name
    bucket, leases = limit_keys(keys, Dimension.USER, OWNER)
    assert 59_000 < await client.pttl(bucket) <= 61_000
    await meter.settle(reservation, num_tokens=0)
    assert await client.exists(leases) == 0
    assert await client.pttl(bucket) <= 2_000


async def test_a_bucket_with_a_day_is_kept_for_a_day_and_goes_earlier_where_it_drains_earlier(
    client: Redis, keys: RunKeys
) -> None:
    meter = Meter(client, keys, defaults(Limits(), user=Limits(requests_per_minute=60, tokens_per_day=100)))
    reservation = await meter.reserve(caller(), num_tokens=100, request_id="r")
    bucket, _ = limit_keys(keys, Dimension.USER, OWNER)
    assert 86_399_000 < await client.pttl(bucket) <= 86_401_000
    await meter.settle(reservation, num_tokens=50)
    assert 43_199_000 < await client.pttl(bucket) <= 43_201_000
    assert len((await command(client, "GET", bucket)).split()) == 5
    without = Meter(client, keys, defaults(Limits(), user=Limits(requests_per_minute=60)))
    await without.reserve(caller(), num_tokens=100, request_id="s")
    assert len((await command(client, "GET", bucket)).split()) == 3


async def test_a_lower_limit_holds_at_once_for_what_was_used_before(client: Redis, keys: RunKeys) -> None:
    await Tries(frozen(client, keys, defaults(Limits(requests_per_minute=100))), caller()).once()
    before = Tries(frozen(client, keys, defaults(Limits(requests_per_minute=100))), caller())
    for _ in range(9):
        await before.once()
    after = Tries(frozen(client, keys, defaults(Limits(requests_per_minute=10))), caller())
    await after.once()
    assert after.refusals[0].retry_after_seconds == 6.0


MINUTES = defaults(
    Limits(requests_per_minute=97, tokens_per_minute=100_000_000),
    user=Limits(requests_per_minute=31, tokens_per_minute=4001, max_concurrent=7),
    organisation=Limits(tokens_per_minute=2001, max_concurrent=5),
)
MINUTES_AND_DAYS = defaults(
    Limits(requests_per_day=100_000_000),
    user=Limits(requests_per_minute=3, tokens_per_minute=1501, requests_per_day=101, tokens_per_day=25_001),
)
DAYS = defaults(
    Limits(requests_per_day=61, tokens_per_day=100_000_000, tokens_per_minute=17_077),
    user=Limits(requests_per_minute=31, tokens_per_day=11_003, max_concurrent=7),
    organisation=Limits(requests_per_day=83, tokens_per_day=7_001),
)


@pytest.mark.parametrize(
    ("limits", "longest_pause_seconds", "expected"),
    [
        (MINUTES, 5.0, {"user tokens", "organisation tokens"}),
        (DAYS, 2_000.0, {"key daily_requests", "user daily_tokens", "organisation daily_tokens"}),
        (MINUTES_AND_DAYS, 60.0, {"user tokens", "user requests", "user daily_requests", "user daily_tokens"}),
    ],
)
async def test_the_script_and_the_local_meter_are_the_same_arithmetic(
    client: Redis, keys: RunKeys, limits: LimitDefaults, longest_pause_seconds: float, expected: set[str]
) -> None:
    dice = random.Random(7)
    now = 0.0
    meter, local = frozen(client, keys, limits, lease_seconds=20), LocalMeter(lease_seconds=20, clock=lambda: now)
    open_calls: list[tuple[str, Caller, int]] = []
    outcomes: set[str] = set()
    for number in range(1500):
        now = round(now + dice.choice([0, 0.000001, 0.1, 1.3, longest_pause_seconds]) * dice.random(), 6)
        await advance(client, now)
        who = caller(owner=dice.choice(["1", "2"]) * 32, organisation=dice.choice(["", "acme"]))
        num_tokens = dice.randint(1, 900)
        if open_calls and dice.random() < 0.5:
            request, settled_by, reserved = open_calls.pop(dice.randrange(len(open_calls)))
            used = dice.randint(0, reserved + 20)
            dimensions = limits.of(settled_by)
            await meter.settle(
                Reservation(request_id=request, num_tokens=reserved, dimensions=dimensions), num_tokens=used
            )
            local.settle(dimensions, request, reserved - used)
            continue
        request = f"r{number}"
        wanted = Reservation(request_id=request, num_tokens=num_tokens, dimensions=limits.of(who))
        (theirs,) = await meter._reserve_all([wanted], lease_micros=20_000_000)
        ours = local.reserve(limits.of(who), request, num_tokens)
        assert theirs == ours, number
        outcomes.add(_word(theirs))
        if theirs is None:
            open_calls.append((request, who, num_tokens))
    assert {"granted", *expected} <= outcomes


def _word(refusal: Refusal | None) -> str:
    return "granted" if refusal is None else f"{refusal.dimension} {refusal.kind}"


async def test_the_largest_limit_is_still_exact(client: Redis, keys: RunKeys) -> None:
    tries = Tries(frozen(client, keys, defaults(Limits(tokens_per_minute=100_000_000))), caller())
    await tries.once(99_999_999)
    await tries.once(2)
    await tries.once(1)
    await tries.once(1)
    assert len(tries.granted) == 2
    bucket, _ = limit_keys(keys, Dimension.KEY, "k")
    assert await client.get(bucket) == f"{START} 0 {100_000_000 * MINUTE.num_ticks}".encode()


async def test_the_largest_limit_of_a_day_is_still_exact(client: Redis, keys: RunKeys) -> None:
    tries = Tries(frozen(client, keys, defaults(Limits(tokens_per_day=100_000_000))), caller())
    await tries.once(99_999_999)
    await tries.once(100_000_000)
    assert tries.refusals[0].retry_after_seconds == 86_400.0  # All but 0.000864 s of a day, to the end of its tick.
    await tries.once(2)
    assert tries.refusals[1].retry_after_seconds == 0.001
    await tries.once(1)
    assert len(tries.granted) == 2
    bucket, _ = limit_keys(keys, Dimension.KEY, "k")
    assert await client.get(bucket) == f"{START} 0 0 0 {100_000_000 * DAY.num_ticks}".encode()
    await advance(client, 86_399.999)
    await tries.once(100_000_000)
    await advance(client, 86_400)
    await tries.once(100_000_000)
    assert len(tries.granted) == 3


async def test_refusals_are_counted_by_whose_and_by_kind(client: Redis, keys: RunKeys) -> None:
    labels = {"dimension": "organisation", "kind": "daily_requests"}
    before = REGISTRY.get_sample_value("onlinerlhf_gateway_limit_refusals_total", labels) or 0.0
    limits = defaults(Limits(), organisation=Limits(requests_per_day=1))
    tries = Tries(frozen(client, keys, limits), caller(organisation="acme"))
    for _ in range(3):
        await tries.once()
    assert REGISTRY.get_sample_value("onlinerlhf_gateway_limit_refusals_total", labels) == before + 2


async def test_calls_that_are_over_at_once_are_charged_together_and_hold_no_place(client: Redis, keys: RunKeys) -> None:
    meter = frozen(client, keys, defaults(Limits(requests_per_minute=3, tokens_per_minute=100, max_concurrent=1)))
    who = caller()
    charges = [Charge(who, 30, "a"), Charge(who, 200, "b"), Charge(who, 30, "c"), Charge(who, 50, "d")]
    first, never, third, later = await meter.charge_all(charges)
    assert (first, third) == (None, None)
    assert isinstance(never, InvalidInput) and never.reason == "exceeds_quota"
    # 60 of 100 tokens are used; 10 of 50 must flow back, at 100 a minute.
    assert isinstance(later, LimitReached) and later.retry_after_seconds == pytest.approx(6.0)
    # Nothing is under way, so an answer may be; then none of the three requests is left.
    await meter.reserve(who, num_tokens=1, request_id="e")
    (refused,) = await meter.charge_all([Charge(who, 1, "f")])
    assert isinstance(refused, LimitReached) and "requests" in str(refused)
    assert await meter.charge_all([]) == []
