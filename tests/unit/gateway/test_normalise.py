import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from onlinerlhf.gateway.normalise import is_blank, keyed_digest, normalise, text_digest

KEY = b"a key for tests"


def test_runs_of_whitespace_become_one_space() -> None:
    assert normalise("  Name \t three\n\nfruits. ") == "Name three fruits."


def test_full_width_and_ligatures_become_plain() -> None:
    assert normalise("Ｎａｍｅ\u00a0ﬁve") == "Name five"


def test_invisible_characters_are_dropped() -> None:
    assert normalise("Na\u200bme\u00ad th\ufeffree") == "Name three"


def test_case_is_kept_by_normalise_and_folded_by_the_digest() -> None:
    assert normalise("Straße") == "Straße"
    assert text_digest("Straße", KEY) == text_digest("STRASSE", KEY)


def test_texts_that_read_alike_share_a_digest_and_others_do_not() -> None:
    assert text_digest("Name three fruits.", KEY) == text_digest(" NAME\u200b three\n fruits. ", KEY)
    assert text_digest("Name three fruits.", KEY) != text_digest("Name four fruits.", KEY)


def test_another_key_gives_another_digest() -> None:
    assert text_digest("Name three fruits.", KEY) != text_digest("Name three fruits.", b"another key")


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
