import time

import pytest

from onlinerlhf.core.samples import UseCase
from onlinerlhf.gateway.admission.use_cases import by_rules, tag

EXAMPLES = [
    (UseCase.BRAINSTORMING, "List five ideas for a birthday party"),
    (UseCase.BRAINSTORMING, "What are some things to see in Porto?"),
    (UseCase.BRAINSTORMING, "Give me a list of names for a cat"),
    (UseCase.CLASSIFICATION, "Classify this review as positive or negative:\n\nI liked it."),
    (UseCase.CLASSIFICATION, "Tweet: what a day\nSentiment:"),
    (UseCase.CLASSIFICATION, "Rate the text on a scale from 1 to 10 for how rude it is"),
    (UseCase.EXTRACT, "Extract all dates from the letter below."),
    (UseCase.EXTRACT, "Find all names of cities in this text: Paris and Rome."),
    (UseCase.GENERATION, "Write a short story about a bear at the beach."),
    (UseCase.GENERATION, "please write an outline for an essay on rivers"),
    (UseCase.GENERATION, "Create a funny slogan for a bakery"),
    (UseCase.REWRITE, "Translate this sentence to Spanish:\n\nGood morning."),
    (UseCase.REWRITE, "Make this more formal: hey, what's up"),
    (UseCase.REWRITE, "Fix the grammar: she no go home"),
    (UseCase.CHAT, "The following is a conversation with an assistant.\n\nHuman: Hello\nAI:"),
    (UseCase.CHAT, "Me: hi there\nBuddha: hello\nMe: who are you?\nBuddha:"),
    (UseCase.CLOSED_QA, "Using the following facts, how do cats and dogs differ?\n\nCats purr."),
    (UseCase.CLOSED_QA, "Which planet is largest?\n\nA) Mars\nB) Jupiter"),
    (UseCase.OPEN_QA, "Who built the Eiffel tower?"),
    (UseCase.OPEN_QA, "how do rainbows form"),
    (UseCase.SUMMARIZATION, "Summarize this for a child:\n\nThe law of ..."),
    (UseCase.SUMMARIZATION, "A long article about fish.\n\nTl;dr:"),
]


@pytest.mark.parametrize(("use_case", "text"), EXAMPLES)
def test_clear_cases_are_told_by_rules(use_case: UseCase, text: str) -> None:
    assert tag((("user", text),), "") == (use_case, "rules")


@pytest.mark.parametrize("text", ["start with where", "asdf", "The dog brings back a", "我喜欢苹果"])
def test_what_no_rule_knows_is_other(text: str) -> None:
    assert tag((("user", text),), "") == (UseCase.OTHER, "none")


def test_the_clients_word_counts_where_it_is_one_of_the_ten() -> None:
    turns = (("user", "Who built it?"),)
    assert tag(turns, "rewrite") == (UseCase.REWRITE, "client")
    assert tag(turns, "poetry") == (UseCase.OPEN_QA, "rules")


def test_several_turns_of_a_user_are_a_chat() -> None:
    assert tag((("user", "hi"), ("assistant", "yes?"), ("user", "Who?")), "") == (UseCase.CHAT, "rules")
    assert tag((("system", "Be kind."), ("user", "Who was Caesar?")), "") == (UseCase.OPEN_QA, "rules")


@pytest.mark.parametrize(
    "text", ["a " * 10_000, "human:" * 4_000, "write a" + " b-c" * 5_000, "list all " + "a " * 9_000, "\n" * 20_000]
)
def test_a_hostile_text_costs_no_time(text: str) -> None:
    started = time.perf_counter()
    by_rules(text)
    assert time.perf_counter() - started < 0.02
