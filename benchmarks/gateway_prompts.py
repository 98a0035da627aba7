"""Prompts as people write them, each different, from a seed: instructions, with passages of some 300 to 800 characters
or with a sentence, about as long as the examples in Ouyang et al. 2022, appendix A.2 (109 characters on average).

No two share their first characters (normalised), and none holds anything personal, so none of them is a duplicate and
all may be learned from.
"""

import random
from collections.abc import Callable, Iterator
from typing import Final

FIRST_CHARACTERS: Final = 192
FIRST_CHARACTERS_OF_SHORT: Final = 128
MIN_CHARACTERS, MAX_CHARACTERS = 300, 800

_OPENERS: Final = (
    "Summarize the following text in two sentences:",
    "Write a short story that begins like this.",
    "Explain to a child of ten what happens here, and why:",
    "Translate this into simple English and keep the numbers:",
    "What are three questions that a careful reader would ask about this passage?",
    "Rewrite the paragraph so that it sounds more formal.",
    "List all tools that are named below, one a line.",
    "Is the mood of this review positive or negative? Answer in one word.",
    "Give me some ideas for a talk about this:",
    "Continue the report in the same style.",
    "Turn the notes below into an e-mail to the whole team.",
    "How could the plan in this text fail? Think step by step.",
)
_WHO: Final = (
    "the old gardener", "our smallest team", "a retired engineer", "the night train", "every second visitor",
    "the school orchestra", "a young beekeeper", "the harbour office", "our neighbour's dog", "the new library",
    "a patient teacher", "the mountain hut", "the repair workshop", "a lost tourist", "the village bakery",
    "my older sister", "the research vessel", "a nervous actor", "the local paper", "the chess club",
    "the weather station", "a curious student", "the ferry crew", "the museum guard",
)  # fmt: skip
_DID: Final = (
    "collected", "measured", "repaired", "described", "sold", "painted", "compared", "carried", "forgot", "tested",
    "translated", "rebuilt", "photographed", "delivered", "rejected", "counted", "sharpened", "cleaned", "borrowed",
    "planted", "labelled", "recorded", "designed", "packed",
)  # fmt: skip
_WHAT: Final = (
    "wooden chairs", "samples of river water", "three broken clocks", "the second chapter", "jars of dark honey",
    "a model of the bridge", "winter coats", "the copper cables", "apples from 2019", "old maps", "a list of 14 birds",
    "letters without a stamp", "the solar panels", "half of the tickets", "a recipe for rye bread", "version 3.2 of it",
    "bicycles", "the stage lights", "a bag of 25 kg of flour", "spare parts", "the longest rope", "small engines",
    "paper boats", "two kinds of cement",
)  # fmt: skip
_WHEN: Final = (
    "before the storm", "on the first warm day of spring", "within 45 minutes", "at the end of a long shift",
    "although nobody had asked", "because the price rose by 7%", "while it was still dark", "in the summer of 1998",
    "as the rules demand", "for less than 30 euros", "without a single mistake", "after the third attempt",
    "during the autumn fair", "in front of a full hall", "with borrowed tools", "a week too late",
    "to everyone's surprise", "on the way to the coast", "under the stone arch", "between two exams",
)  # fmt: skip


def prompts(seed: int) -> Iterator[str]:
    """With passages. Without end."""
    return _different(_prompt, random.Random(seed), FIRST_CHARACTERS)


def short_prompts(seed: int) -> Iterator[str]:
    """With a sentence each. Without end."""
    return _different(_short, random.Random(seed), FIRST_CHARACTERS_OF_SHORT)


def _different(make: Callable[[random.Random], str], rng: random.Random, num_first: int) -> Iterator[str]:
    seen: set[int] = set()
    while True:
        text = make(rng)
        first = hash(" ".join(text.split()).casefold()[:num_first])
        if first not in seen:
            seen.add(first)
            yield text


def passage(rng: random.Random, num_characters: int) -> str:
    """Sentences until there are so many characters."""
    text = _sentence(rng)
    while len(text) < num_characters:
        text += " " + _sentence(rng)
    return text


def _prompt(rng: random.Random) -> str:
    separator = rng.choice((" ", "\n", "\n\n"))
    text = rng.choice(_OPENERS) + separator + passage(rng, rng.randint(MIN_CHARACTERS, MAX_CHARACTERS - 250))
    return text if len(text) >= MIN_CHARACTERS else _prompt(rng)


def _short(rng: random.Random) -> str:
    return f"{rng.choice(_OPENERS)} {_sentence(rng)}"


def _sentence(rng: random.Random) -> str:
    clause = f"{rng.choice(_WHO)} {rng.choice(_DID)} {rng.choice(_WHAT)}"
    if rng.random() < 0.4:
        clause += f", and {rng.choice(_WHO)} {rng.choice(_DID)} {rng.choice(_WHAT)}"
    text = f"{clause} {rng.choice(_WHEN)}" if rng.random() < 0.7 else f"{rng.choice(_WHEN)}, {clause}"
    return text[0].upper() + text[1:] + rng.choice((".", ".", ".", "!", "?"))
