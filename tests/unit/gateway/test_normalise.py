import re
import sys
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from onlinerlhf.gateway.admission import normalise as module
from onlinerlhf.gateway.admission.normalise import comparable, is_blank, keyed_digest, normalise

KEY = b"a key for tests"


def test_runs_of_whitespace_become_one_space() -> None:
    assert normalise("  Name \t three\n\nfruits. ") == "Name three fruits."


def test_full_width_and_ligatures_become_plain() -> None:
    assert normalise("Ｎａｍｅ\u00a0ﬁve") == "Name five"


def test_invisible_characters_are_dropped() -> None:
    assert normalise("Na\u200bme\u00ad th\ufeffree") == "Name three"


def test_the_list_of_invisible_characters_is_that_of_the_unicode_tables() -> None:
    every = "".join(chr(code) for code in range(sys.maxunicode + 1))
    listed = set(re.findall(module._FORMAT.pattern.removesuffix("+"), every))
    invisible = {character for character in every if unicodedata.category(character) == "Cf"}
    assert listed >= invisible
    # Older tables do not know all of them yet.
    assert {unicodedata.category(character) for character in listed - invisible} <= {"Cn"}


def test_case_is_kept_by_normalise_and_folded_for_comparison() -> None:
    assert normalise("Straße") == "Straße"
    assert comparable("Straße") == comparable("STRASSE") == "strasse"


def test_texts_that_read_alike_compare_equal_and_others_do_not() -> None:
    assert comparable("Name three fruits.") == comparable(" NAME\u200b three\n fruits. ")
    assert comparable("Name three fruits.") != comparable("Name four fruits.")


def test_another_key_gives_another_digest() -> None:
    assert keyed_digest(b"abc", KEY) != keyed_digest(b"abc", b"another key")


def test_a_digest_is_128_bits_of_blake2b() -> None:
    assert len(keyed_digest(b"abc", KEY)) == 32


def test_only_spaces_and_invisible_characters_are_blank() -> None:
    assert is_blank("")
    assert is_blank(" \t\n\u00a0\u200b\ufeff")
    assert not is_blank("\u200b.")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_normalising_leaves_no_invisible_character_and_no_double_space(text: str) -> None:
    result = normalise(text)
    assert not any(unicodedata.category(character) == "Cf" for character in result)
    assert result == " ".join(result.split())


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_what_normalises_to_nothing_is_blank(text: str) -> None:
    assert is_blank(text) == (normalise(text) == "")
