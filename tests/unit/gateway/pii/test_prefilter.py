"""A prefilter may only save time: it finds something exactly where one of its words is."""

import random

from onlinerlhf.gateway.pii.prefilter import any_of

WORDS = ("pass", "ssn", "steuer", "müller", "@", "-----", "e.v", "a")


def test_any_of_finds_something_exactly_where_a_word_is() -> None:
    dice = random.Random(7)
    prefilters = [(words, any_of(words)) for words in (WORDS, WORDS[:3], ("ab", "abc", "bca"))]
    letters = "abcdpsntevr ü@-.üml"
    for _ in range(3_000):
        text = "".join(dice.choice(letters) for _ in range(dice.randint(0, 30)))
        if dice.random() < 0.3:
            place = dice.randint(0, len(text))
            text = text[:place] + dice.choice(WORDS) + text[place:]
        for words, prefilter in prefilters:
            assert (prefilter.search(text) is not None) == any(word in text for word in words), (words, text)
