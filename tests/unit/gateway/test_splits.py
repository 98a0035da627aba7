from collections import Counter

import pytest

from onlinerlhf.gateway.access.identity import Digests
from onlinerlhf.gateway.admission.splits import Split, Splits, leading_bits, unit_interval
from trainables import DIGESTS, a_caller

SPLITS = Splits(salt="1", valid_share=0.1, test_share=0.2)


def test_the_first_52_bits_make_a_number_from_0_to_1() -> None:
    assert leading_bits("f" * 32) == 2**52 - 1
    assert unit_interval("0" * 32) == 0.0
    assert unit_interval("8" + "0" * 31) == 0.5
    assert unit_interval("f" * 32) < 1.0


def test_the_shares_come_out_over_many_tenants() -> None:
    sides = Counter(SPLITS.of(DIGESTS, f"tenant {number}") for number in range(10_000))
    assert sides[Split.TEST] == pytest.approx(2_000, abs=150)
    assert sides[Split.VALID] == pytest.approx(1_000, abs=120)


def test_a_tenant_is_always_on_one_side_and_another_salt_deals_anew() -> None:
    tenants = [f"tenant {number}" for number in range(200)]
    first = [SPLITS.of(DIGESTS, tenant) for tenant in tenants]
    assert first == [SPLITS.of(Digests(DIGESTS.key), tenant) for tenant in tenants]
    assert first != [Splits(salt="2", valid_share=0.1, test_share=0.2).of(DIGESTS, tenant) for tenant in tenants]


def test_all_users_of_an_organisation_are_on_its_side() -> None:
    sides = {SPLITS.of(DIGESTS, a_caller(f"user {number}", organisation="acme").tenant) for number in range(50)}
    assert len(sides) == 1
    assert len({SPLITS.of(DIGESTS, a_caller(f"user {number}").tenant) for number in range(50)}) == 3


def test_without_shares_all_is_for_training() -> None:
    splits = Splits(salt="1", valid_share=0.0, test_share=0.0)
    assert {splits.of(DIGESTS, f"tenant {number}") for number in range(100)} == {Split.TRAIN}


def test_the_lineage_tells_salts_shares_and_keys_apart_and_shows_none_of_them() -> None:
    others = [
        Splits(salt="2", valid_share=0.1, test_share=0.2),
        Splits(salt="1", valid_share=0.2, test_share=0.1),
        Splits(salt="10", valid_share=0.1, test_share=0.2),
    ]
    lineages = {splits.lineage(DIGESTS) for splits in (SPLITS, *others)} | {SPLITS.lineage(Digests(b"another"))}
    assert len(lineages) == 5
