import re
from itertools import pairwise

import pytest

from onlinerlhf.gateway.access.callers import KeyClass
from onlinerlhf.gateway.access.key_format import new_key
from onlinerlhf.gateway.pii import Kind, find
from onlinerlhf.gateway.pii.keccak import keccak_256
from onlinerlhf.gateway.pii.offsets import view
from onlinerlhf.gateway.pii.phones import MAX_CHECKS
from onlinerlhf.gateway.pii.secrets import entropy
from onlinerlhf.gateway.pii.windows import long_words, not_after, numbers


def kinds(text: str) -> list[Kind]:
    return [found.kind for found in find(text)]


def test_keccak_256_of_nothing_and_of_abc() -> None:
    # Source: the Ethereum yellow paper, and the test vectors of the reference implementation.
    assert keccak_256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert keccak_256(b"abc").hex() == "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"
    assert len(keccak_256(b"x" * 300)) == 32


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("4111 1111 1111 1111", "4111 1111 1111 1112"),
        ("DE89370400440532013000", "DE88370400440532013000"),
        ("11010519491231002X", "110105194912310021"),
        ("12345678Z", "12345678A"),
        ("X2345678T", "X2345678A"),
        ("86 095 742 719", "86 095 742 718"),
        ("1 84 12 76 451 089 46", "1 84 12 76 451 089 47"),
        ("30 23 217 600 053", "30 23 217 600 054"),
        ("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb"),
        ("bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdp"),
        ("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"),
        ("536-22-8741", "666-22-8741"),
        ("AB123456C", "GB123456C"),
    ],
)
def test_a_wrong_checksum_or_a_range_never_given_out_is_no_finding(right: str, wrong: str) -> None:
    assert len(kinds(f"it is {right} here")) == 1
    assert kinds(f"it is {wrong} here") == []


def test_every_key_this_gateway_gives_out_is_found() -> None:
    for key_class in KeyClass:
        for _ in range(50):
            assert kinds(f"my key is {new_key(key_class).text}, thanks") == [Kind.API_KEY]


def test_the_word_nearest_to_a_number_decides_what_it_is() -> None:
    assert kinds("order no. 4155552671") == []
    assert kinds("about my order: call 4155552671") == [Kind.PHONE]
    assert kinds("4155552671") == []


def test_beyond_the_bound_of_checks_a_candidate_counts_as_found() -> None:
    invalid = "555 211 3456, "
    assert kinds(invalid) == []
    assert kinds(invalid * (MAX_CHECKS + 5)) != []


def test_private_and_documented_addresses_belong_to_nobody() -> None:
    for address in ("10.1.2.3", "172.31.0.9", "192.168.7.7", "127.0.0.1", "198.51.100.7", "255.255.255.0", "fe80::1"):
        assert kinds(f"the ip is {address}") == []
    assert kinds("the ip is 93.184.216.34") == [Kind.IP_ADDRESS]


def test_entropy_is_in_bits_a_character() -> None:
    assert entropy("aaaa") == 0.0
    assert entropy("abcd") == 2.0


def test_windows_are_in_order_and_apart() -> None:
    seen = view("call 415-555-2671 or 415-555-2672; then nothing for a long while here, and 1234567 " + "x" * 25)
    for windows in (numbers(seen), long_words(seen)):
        assert all(start < end for start, end in windows)
        assert all(one[1] < other[0] for one, other in pairwise(windows))
    assert len(numbers(seen)) == 2
    assert len(long_words(seen)) == 1


@pytest.mark.parametrize("body", ["[0-9]{3}-[0-9]", "[0-9]{2,3}x", "0[67]", "(?:1 )?[0-9]", "[0-9]x", "[0-9]?1"])
def test_a_look_behind_after_the_first_character_means_the_same(body: str) -> None:
    plain = re.compile(f"(?<![0-9_])(?<![0-9][.]){body}")
    fast = re.compile(not_after("[0-9_]", "[0-9][.]", body=body))
    for text in (
        "123-4",
        "0123-4",
        "1.123-4",
        "x123-4",
        "_06",
        "06",
        " 07",
        "1 06",
        "12x",
        "3.12x",
        "1x",
        "11x",
        "1",
        "9.1",
    ):
        assert [match.span() for match in fast.finditer(text)] == [match.span() for match in plain.finditer(text)]
