import hashlib
import random

from hypothesis import given
from hypothesis import strategies as st

from onlinerlhf.gateway.admission.dedup import RUNGS, Fingerprint, fingerprint
from onlinerlhf.gateway.admission.templates import Templates

KEY = b"a key for tests"
TEXT = "".join(random.Random(3).choices("abcdefgh ijklm", k=3000))


def shared_rung(one: Fingerprint, other: Fingerprint) -> int:
    return max((rung.num_characters for rung in one.rungs if rung in other.rungs), default=0)


def test_the_ladder_climbs_by_half_from_128_characters() -> None:
    assert RUNGS[:6] == (128, 192, 288, 432, 648, 972)


def test_a_prompt_has_the_rungs_that_fit_into_it() -> None:
    assert [rung.num_characters for rung in fingerprint([TEXT[:288]], KEY).rungs] == [128, 192, 288]
    assert fingerprint([TEXT[:127]], KEY).rungs == ()


def test_the_longest_shared_rung_is_within_a_third_of_what_is_shared() -> None:
    for length in (128, 200, 500, 1234):
        rung = shared_rung(fingerprint([TEXT[:length] + "x" * 50], KEY), fingerprint([TEXT[:length] + "y" * 900], KEY))
        assert length / 1.5 - 1 <= rung <= length


def test_a_chat_has_a_digest_at_each_turns_end_and_they_are_those_of_its_beginnings() -> None:
    one, two, three = (fingerprint(turns, KEY) for turns in (["a"], ["a", "bb"], ["a", "bb", "ccc"]))
    assert three.turns == (one.whole, two.whole)
    assert [prefix.num_characters for prefix in (*three.turns, three.whole)] == [1, 4, 8]


def test_turns_are_not_run_together() -> None:
    assert fingerprint(["ab", "c"], KEY).whole != fingerprint(["a", "bc"], KEY).whole
    assert fingerprint(["a", "b"], KEY).whole != fingerprint(["a b"], KEY).whole


def test_a_rung_is_no_turns_end() -> None:
    whole = fingerprint([TEXT[:128]], KEY)
    assert whole.whole.digest != whole.rungs[0].digest


def test_characters_count_not_bytes() -> None:
    assert [rung.num_characters for rung in fingerprint(["北" * 130], KEY).rungs] == [128]


def test_digests_are_keyed_and_eight_bytes() -> None:
    assert fingerprint(["a"], KEY).whole.digest != fingerprint(["a"], b"another key").whole.digest
    assert len(fingerprint(["a"], KEY).whole.digest) == 8


def test_packed_is_the_whole_then_turns_then_rungs() -> None:
    packed = fingerprint(["a", TEXT[:130]], KEY).packed
    lengths = [int.from_bytes(packed[start + 8 : start + 12], "big") for start in range(0, len(packed), 12)]
    assert lengths == [132, 1, 128]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Zs", "Cc"]), max_size=300), min_size=1, max_size=4))
def test_one_pass_gives_what_hashing_each_prefix_gives(contents: list[str]) -> None:
    found = fingerprint(contents, KEY)
    text = "\n".join(contents)
    assert found.whole.num_characters == len(text)
    for kind, prefixes in ((b"\x00turn", (*found.turns, found.whole)), (b"\x00rung", found.rungs)):
        for prefix in prefixes:
            value = text[: prefix.num_characters].encode() + kind
            assert prefix.digest == hashlib.blake2b(value, key=KEY, digest_size=8, person=b"dedup").digest()


def test_a_templates_words_are_not_the_users() -> None:
    templates = Templates.of(["You are a helpful bot. Question: {} Answer:", "Translate {} into {}", "{} Tl;dr:"])
    assert templates.content("you are a helpful bot. question: what is rust? answer:") == "what is rust?"
    assert templates.content("translate bread into french") == "bread french"
    assert templates.content("long article tl;dr:") == "long article"
    assert templates.content("what is rust?") == "what is rust?"


def test_the_template_with_the_most_words_wins() -> None:
    templates = Templates.of(["{} please", "write {} please"])
    assert templates.content("write a poem please") == "a poem"


def test_a_template_alone_is_compared_as_it_is() -> None:
    templates = Templates.of(["Hello {}"])
    assert templates.content("hello ") == "hello "
    assert Templates.of(["Good morning."]).content("good morning.") == "good morning."


def test_literals_do_not_overlap() -> None:
    assert Templates.of(["aba{}aba"]).content("ababa") == "ababa"
    assert Templates.of(["a{}b{}c"]).content("axc") == "axc"


def test_an_application_preamble_stripped_no_longer_makes_duplicates() -> None:
    preamble = "You are the support bot of a shop. " * 20
    templates = Templates.of([preamble + "{}"])
    one, two = (templates.content((preamble + question).casefold()) for question in ("where is it?", "who are you?"))
    assert shared_rung(fingerprint([one], KEY), fingerprint([two], KEY)) == 0
    assert one == "where is it?"
