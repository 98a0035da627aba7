from collections import Counter
from itertools import pairwise

import pytest

from onlinerlhf.gateway.pii import Finding, Kind, find
from onlinerlhf.gateway.pii.findings import without_overlaps
from pii.cases import Case
from pii.negatives import NEGATIVES
from pii.positives import BEST_EFFORT, STRUCTURED


def test_the_set_has_150_of_each_side_and_every_kind() -> None:
    assert len(STRUCTURED) >= 150
    assert len(NEGATIVES) >= 150
    assert {case.kind for case in STRUCTURED} == {kind for kind in Kind if kind.is_structured}
    assert len({case.text for case in STRUCTURED}) == len(STRUCTURED)
    assert len(set(NEGATIVES)) == len(NEGATIVES)


def test_at_least_95_percent_of_the_structured_kinds_are_found() -> None:
    missed = [case.kind for case in STRUCTURED if not case.is_found(find(case.text))]
    assert len(missed) <= 0.05 * len(STRUCTURED), Counter(missed)


def test_every_structured_kind_is_found_in_at_least_three_quarters_of_its_cases() -> None:
    total = Counter(case.kind for case in STRUCTURED)
    found = Counter(case.kind for case in STRUCTURED if case.is_found(find(case.text)))
    assert [kind for kind in total if found[kind] < 0.75 * total[kind]] == []


def test_at_most_one_percent_of_what_is_none_is_taken_for_something() -> None:
    alarms = [number for number, text in enumerate(NEGATIVES) if find(text)]
    assert len(alarms) <= 0.01 * len(NEGATIVES), alarms


def test_names_and_addresses_are_found_where_the_words_around_say_so() -> None:
    found = [case for case in BEST_EFFORT if case.is_found(find(case.text))]
    assert len(found) >= 10


@pytest.mark.parametrize("case", STRUCTURED[::7], ids=lambda case: case.kind.value)
def test_the_offsets_are_those_of_the_text_as_given(case: Case) -> None:
    shifted = "你好\u200b " + case.text
    moved = Case(kind=case.kind, text=shifted, start=case.start + 4, end=case.end + 4)
    assert moved.is_found(find(shifted))


def test_findings_are_sorted_and_do_not_overlap() -> None:
    text = " ".join(case.text for case in STRUCTURED)
    findings = find(text)
    assert len(findings) > 150
    assert all(one.end <= other.start for one, other in pairwise(findings))


def test_the_longer_wins_and_a_form_wins_over_a_guess() -> None:
    card = Finding(kind=Kind.CARD, start=10, end=29)
    phone = Finding(kind=Kind.PHONE, start=10, end=22)
    address = Finding(kind=Kind.STREET_ADDRESS, start=0, end=60)
    other = Finding(kind=Kind.EMAIL, start=60, end=70)
    assert without_overlaps([phone, address, other, card]) == [card, other]


def test_an_empty_text_has_nothing_in_it() -> None:
    assert find("") == []


def test_example_addresses_are_addresses() -> None:
    assert [found.kind for found in find("write to someone@example.com")] == [Kind.EMAIL]
