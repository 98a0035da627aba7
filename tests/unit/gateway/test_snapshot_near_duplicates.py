"""Near-duplicates among prompts."""

import random

import pytest

from onlinerlhf.gateway.snapshot.near_duplicates import (
    NearDuplicateRule,
    fold,
    jaccard,
    near_duplicates,
    shingles,
)
from onlinerlhf.gateway.snapshot.user_content import user_content

RULE = NearDuplicateRule()
TEXT = "please write a short poem about the sea in winter, with four lines and a title that names a bird"


def test_shingles_are_all_runs_of_so_many_characters() -> None:
    assert shingles("abcdef", 5) == {"abcde", "bcdef"}
    assert shingles("abc", 5) == {"abc"}


def test_jaccard_is_what_is_common_over_what_there_is() -> None:
    assert jaccard({"a", "b", "c"}, {"b", "c", "d"}) == 0.5
    assert jaccard({"a"}, {"a"}) == 1.0
    assert jaccard({"a"}, {"b"}) == 0.0


def test_the_later_of_two_near_duplicates_names_the_earlier() -> None:
    texts = [TEXT, "name three foods", TEXT.replace("winter", "autumn"), "name three foods"]
    assert list(near_duplicates(texts, RULE)) == [None, None, 0, 1]


def test_case_width_whitespace_and_invisible_characters_do_not_count() -> None:
    changed = TEXT.upper().replace(" ", " \u200b ").replace("4", "４")
    assert fold(changed) == fold(TEXT)
    assert list(near_duplicates([TEXT, changed], RULE)) == [None, 0]


def test_texts_without_spaces_are_compared_too() -> None:
    chinese = "请写一首关于冬天的海的短诗，四行，标题里要有一种鸟的名字，并且不要用比喻"
    assert list(near_duplicates([chinese, chinese.replace("冬天", "秋天")], NearDuplicateRule(threshold=0.5))) == [
        None,
        0,
    ]
    assert list(
        near_duplicates([chinese, "给我讲一个关于柠檬的句子，用简单的词，不要超过十个字，谢谢你的帮助"], RULE)
    ) == [None, None]


def test_a_candidate_below_the_threshold_is_kept() -> None:
    other = TEXT.replace("about the sea in winter", "on the hills by my town")
    similarity = jaccard(shingles(TEXT, 5), shingles(other, 5))
    assert 0.4 < similarity < 0.7
    assert list(near_duplicates([TEXT, other], RULE)) == [None, None]
    lower = NearDuplicateRule(threshold=round(similarity, 2) - 0.01)
    assert list(near_duplicates([TEXT, other], lower)) == [None, 0]


@pytest.mark.parametrize(("threshold", "num_bands"), [(0.9, 16), (0.7, 32), (0.5, 64), (0.02, 128)])
def test_a_lower_threshold_takes_more_bands(threshold: float, num_bands: int) -> None:
    assert NearDuplicateRule(threshold=threshold).num_bands == num_bands
    assert NearDuplicateRule().recall(32) == pytest.approx(0.99985, abs=1e-5)


def test_a_chain_of_small_changes_keeps_what_has_moved_away() -> None:
    words = TEXT.split()
    chain = [" ".join(["changed"] * num + words[num:]) for num in range(len(words))]
    found = list(near_duplicates(chain, RULE))
    assert found[0] is None
    assert found[1] == 0
    assert None in found[2:]


def test_two_words_of_a_long_prompt_may_change_and_it_is_still_found() -> None:
    random.seed(7)
    vocabulary = [f"{a}{b}" for a in ("ra", "mo", "ti", "ku", "se") for b in ("len", "dor", "fis", "pam", "gol", "vex")]
    missed = 0
    for _ in range(100):
        words = random.choices(vocabulary, k=60)
        edited = list(words)
        for place in random.sample(range(60), 2):
            edited[place] = "zzzzz"
        missed += list(near_duplicates([" ".join(words), " ".join(edited)], RULE)) != [None, 0]
    assert missed == 0


def test_different_prompts_of_one_length_are_all_kept() -> None:
    random.seed(11)
    texts = ["".join(random.choices("abcdefghijklmnopqrstuvwxyz ", k=120)) for _ in range(500)]
    assert set(near_duplicates(texts, RULE)) == {None}


@pytest.mark.parametrize("text", ["", "a", "\u200b"])
def test_the_shortest_texts_are_no_trouble(text: str) -> None:
    assert list(near_duplicates([text, text], RULE)) == [None, 0]


def test_only_the_users_turns_of_a_conversation_count() -> None:
    assert user_content("system: be kind\n\nuser: hello\n\nassistant: hi\n\nuser: what is\n\na bird?") == (
        "hello\n\nwhat is\n\na bird?"
    )
    assert user_content("name three foods") == "name three foods"
    assert user_content("system: only that") == "system: only that"
