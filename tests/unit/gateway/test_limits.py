"""The sums behind the limits, the limits of one process, and which limits hold for whom."""

import pytest

from onlinerlhf.gateway.access.buckets import (
    DAY,
    MINUTE,
    Bucket,
    Dimension,
    Metered,
    Window,
    refusal_of,
    settled,
    spent,
)
from onlinerlhf.gateway.access.callers import MAX_LIMIT, ApiKey, Caller, KeyClass, Limits, Scope
from onlinerlhf.gateway.access.degraded import LocalMeter, RedisAway
from onlinerlhf.gateway.access.limit_defaults import LimitDefaults, dump_defaults, load_defaults
from onlinerlhf.gateway.access.limit_scripts import limit_arguments
from onlinerlhf.gateway.access.quotas import load_bucket

SECOND = 1_000_000
UNITS, DAY_UNITS = MINUTE.num_ticks, DAY.num_ticks
NONE = Limits()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def metered(*, dimension: Dimension = Dimension.KEY, subject: str = "k", **numbers: int) -> Metered:
    return Metered(dimension=dimension, subject=subject, limits=Limits(**numbers))


def caller(*, organisation: str = "", limits: Limits | None = None) -> Caller:
    key = ApiKey(
        key_id="k",
        name="test",
        key_class=KeyClass.PRODUCTION,
        organisation=organisation,
        scopes=frozenset({Scope.GENERATE}),
        created_at_seconds=1.0,
        limits=limits,
    )
    return Caller(key=key, owner="o" * 32, tenant="t" * 32)


DEFAULTS = LimitDefaults(
    classes={
        KeyClass.PLAYGROUND: Limits(requests_per_minute=60),
        KeyClass.PRODUCTION: Limits(requests_per_minute=600, tokens_per_minute=6000),
    },
    user=Limits(max_concurrent=4),
    organisation=Limits(requests_per_minute=1000),
)


def test_what_was_used_drains_in_proportion_and_is_gone_after_a_minute() -> None:
    limits = Limits(requests_per_minute=60, tokens_per_minute=600)
    bucket = Bucket(at_micros=0)
    for _ in range(60):
        bucket = spent(bucket, limits, 10, 0)
    assert bucket == Bucket(at_micros=0, requests=60 * UNITS, tokens=600 * UNITS)
    assert bucket.at(limits, 15 * SECOND) == Bucket(at_micros=15 * SECOND, requests=45 * UNITS, tokens=450 * UNITS)
    assert not bucket.at(limits, 60 * SECOND - 1).is_full
    assert bucket.at(limits, 60 * SECOND).is_full


def test_a_refusal_names_the_microsecond_at_which_it_would_be_granted() -> None:
    key = metered(requests_per_minute=7)
    bucket = Bucket(at_micros=0, requests=7 * UNITS)
    refusal = refusal_of(key, bucket, [], 1, 0)
    assert refusal is not None
    assert (refusal.kind, refusal.wait_micros) == ("requests", 8_571_429)
    assert refusal_of(key, bucket, [], 1, 8_571_428) is not None
    assert refusal_of(key, bucket, [], 1, 8_571_429) is None


def test_the_longest_wait_is_the_one_that_is_told() -> None:
    key = metered(requests_per_minute=60, tokens_per_minute=60)
    bucket = Bucket(at_micros=0, requests=60 * UNITS, tokens=60 * UNITS)
    refusal = refusal_of(key, bucket, [], 30, 0)
    assert refusal is not None
    assert (refusal.kind, refusal.wait_micros) == ("tokens", 30 * SECOND)


def test_a_refund_never_makes_more_than_a_full_bucket() -> None:
    limits = Limits(tokens_per_minute=60)
    bucket = spent(Bucket(at_micros=0), limits, 30, 0)
    assert settled(bucket, limits, 10, 5 * SECOND).tokens == 15 * UNITS
    assert settled(bucket, limits, 30, 5 * SECOND).is_full


def test_more_than_was_reserved_is_charged_even_into_debt() -> None:
    limits = Limits(tokens_per_minute=60)
    bucket = settled(spent(Bucket(at_micros=0), limits, 50, 0), limits, -40, 0)
    assert bucket.tokens == 90 * UNITS
    refusal = refusal_of(Metered(dimension=Dimension.USER, subject="u", limits=limits), bucket, [], 1, 0)
    assert refusal is not None
    assert refusal.wait_micros == 31 * SECOND


def test_what_was_used_of_a_day_drains_in_proportion_and_is_gone_after_a_day() -> None:
    limits = Limits(requests_per_day=1000, tokens_per_day=24_000)
    bucket = Bucket(at_micros=0)
    for _ in range(1000):
        bucket = spent(bucket, limits, 24, 0)
    assert bucket == Bucket(at_micros=0, daily_requests=1000 * DAY_UNITS, daily_tokens=24_000 * DAY_UNITS)
    hour = bucket.at(limits, 3_600 * SECOND)
    assert hour.daily_tokens == 23_000 * DAY_UNITS
    assert not bucket.at(limits, 86_400 * SECOND - 1).is_full
    assert bucket.at(limits, 86_400 * SECOND).is_full


def test_of_1000_a_day_the_next_one_comes_after_86_4_seconds() -> None:
    user = metered(dimension=Dimension.USER, subject="u", requests_per_day=1000)
    bucket = Bucket(at_micros=0, daily_requests=1000 * DAY_UNITS)
    refusal = refusal_of(user, bucket, [], 1, 0)
    assert refusal is not None
    assert (refusal.kind, refusal.wait_micros) == ("daily_requests", 86_400_000)
    assert refusal_of(user, bucket, [], 1, 86_399_999) is not None
    assert refusal_of(user, bucket, [], 1, 86_400_000) is None


def test_a_days_bucket_that_is_looked_at_all_the_time_drains_as_fast() -> None:
    limits = Limits(tokens_per_day=86_400)
    bucket = spent(Bucket(at_micros=123), limits, 10, 123)
    for now in range(123, 5_000_000, 777):
        bucket = bucket.at(limits, now)
    assert bucket.at(limits, 5_000_000).daily_tokens == 5 * DAY_UNITS


def test_a_day_waits_to_the_end_of_its_millisecond() -> None:
    key = metered(requests_per_day=1_000_000)
    bucket = Bucket(at_micros=999, daily_requests=1_000_000 * DAY_UNITS)
    refusal = refusal_of(key, bucket, [], 1, 999)
    assert refusal is not None
    assert refusal.wait_micros == 86_001  # 86.4 ms, rounded up to the microsecond 87,000
    assert refusal_of(key, bucket, [], 1, 86_999) is not None
    assert refusal_of(key, bucket, [], 1, 87_000) is None


def test_a_minute_and_a_day_are_both_charged_and_both_get_their_refund() -> None:
    limits = Limits(tokens_per_minute=100, tokens_per_day=1000)
    bucket = settled(spent(Bucket(at_micros=0), limits, 90, 0), limits, 60, 0)
    assert (bucket.tokens, bucket.daily_tokens) == (30 * UNITS, 30 * DAY_UNITS)
    assert settled(bucket, limits, -70, 0).daily_tokens == 100 * DAY_UNITS


@pytest.mark.parametrize("window", [MINUTE, DAY])
def test_the_largest_limit_stays_within_the_whole_numbers_of_a_double(window: Window) -> None:
    assert MAX_LIMIT * window.num_ticks < 2**53


def test_without_limits_everything_is_granted_and_nothing_counted() -> None:
    assert refusal_of(metered(), Bucket(at_micros=0), [SECOND] * 10_000, 10**9, 0) is None
    assert spent(Bucket(at_micros=0), NONE, 10**9, 0).is_full


def test_a_local_reservation_is_all_or_nothing() -> None:
    meter = LocalMeter(lease_seconds=60, clock=Clock())
    key, user = metered(requests_per_minute=10), metered(dimension=Dimension.USER, subject="u", tokens_per_minute=5)
    refusal = None
    for number in range(3):
        refusal = meter.reserve([key, user], f"r{number}", 5)
    assert refusal is not None
    assert (refusal.dimension, refusal.kind) == (Dimension.USER, "tokens")
    other = metered(dimension=Dimension.USER, subject="v", tokens_per_minute=5)
    granted = [meter.reserve([key, other], f"s{number}", 1) is None for number in range(5)]
    assert granted == [True] * 5
    assert meter.reserve([key], "t", 1) is None
    assert meter.reserve([metered(requests_per_minute=7)], "u", 1) is not None


def test_local_leases_bound_what_is_under_way_and_end_by_themselves() -> None:
    clock = Clock()
    meter, key = LocalMeter(lease_seconds=60, clock=clock), metered(max_concurrent=2)
    assert [meter.reserve([key], f"r{number}", 1) is None for number in range(3)] == [True, True, False]
    assert meter.settle([key], "r0", 0)
    assert not meter.settle([key], "r0", 0)
    assert meter.reserve([key], "r3", 1) is None
    clock.now = 61.0
    assert [meter.reserve([key], f"s{number}", 1) is None for number in range(3)] == [True, True, False]


def test_a_repeated_local_reservation_is_charged_once() -> None:
    meter, key = LocalMeter(lease_seconds=60, clock=Clock()), metered(requests_per_minute=1)
    assert meter.reserve([key], "r", 1) is None
    assert meter.reserve([key], "r", 1) is None
    assert meter.reserve([key], "s", 1) is not None


def test_local_accounts_are_bounded_and_idle_ones_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onlinerlhf.gateway.access.degraded.MAX_ACCOUNTS", 10)
    clock = Clock()
    meter = LocalMeter(lease_seconds=60, clock=clock)
    for number in range(10):
        assert meter.reserve([metered(subject=f"k{number}", requests_per_minute=60)], "r", 1) is None
    with pytest.raises(RedisAway):
        meter.reserve([metered(subject="k10", requests_per_minute=60)], "r", 1)
    clock.now = 61.0
    assert meter.reserve([metered(subject="k10", requests_per_minute=60)], "r", 1) is None


def test_a_keys_own_numbers_go_over_its_classes() -> None:
    own = caller(limits=Limits(requests_per_minute=5))
    assert DEFAULTS.of(own)[0].limits == Limits(requests_per_minute=5, tokens_per_minute=6000)
    daily = caller(limits=Limits(tokens_per_day=7))
    expected = Limits(requests_per_minute=600, tokens_per_minute=6000, tokens_per_day=7)
    assert DEFAULTS.of(daily)[0].limits == expected


def test_the_organisation_counts_where_the_key_names_one() -> None:
    assert [each.dimension for each in DEFAULTS.of(caller())] == ["key", "user"]
    assert [each.subject for each in DEFAULTS.of(caller(organisation="acme"))] == ["k", "o" * 32, "t" * 32]


def test_a_bucket_is_read_as_the_script_writes_it_with_days_and_without() -> None:
    assert load_bucket(b"7 1 2") == Bucket(at_micros=7, requests=1, tokens=2)
    assert load_bucket(b"7 1 2 3 4") == Bucket(at_micros=7, requests=1, tokens=2, daily_requests=3, daily_tokens=4)


def test_days_are_sent_to_the_script_only_where_one_of_them_is_limited() -> None:
    key, user = metered(requests_per_minute=5), metered(max_concurrent=3)
    assert limit_arguments([key, user]) == [5, -1, -1, -1, -1, 3]
    day = metered(tokens_per_day=9)
    assert limit_arguments([key, day]) == [5, -1, -1, -1, -1, -1, -1, -1, -1, 9]


def test_defaults_survive_redis() -> None:
    assert load_defaults(dump_defaults(DEFAULTS).encode()) == DEFAULTS
