"""Pretraining text: the world's facts as prose, repeated words, and worked exercises."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from onlinerlhf.world import lexicon as lex
from onlinerlhf.world.draw import training_tasks
from onlinerlhf.world.tasks import Task

_PROSE_SHARE = 0.2
_REPEATS_SHARE = 0.15
_CHAT_SHARE = 0.5
_WORDS = (*lex.NAMES, *lex.COLOURS, *lex.OBJECTS, *lex.ANIMALS, *lex.FOODS, *lex.TOOLS, *lex.PAST.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text for pretraining."""

    lead: str
    """The part whose words nobody can foresee, such as a question. May be empty."""
    body: str
    """The part that is worth predicting."""
    is_chat: bool = False
    """Whether the lead is a user's message and the body the reply."""

    @property
    def text(self) -> str:
        """Both parts."""
        return f"{self.lead}\n{self.body}" if self.lead else self.body


def documents(*, seed: int) -> Iterator[Document]:
    """Endless short documents. Exercises come from the training side of the prompts only."""
    rng = random.Random(f"documents/{seed}")
    tasks = training_tasks(rng)
    while True:
        kind = rng.random()
        if kind < _PROSE_SHARE:
            yield Document(lead="", body=_prose(rng))
        elif kind < _PROSE_SHARE + _REPEATS_SHARE:
            yield Document(lead="", body=_repeats(rng))
        else:
            yield _exercise(next(tasks), rng)


def _exercise(task: Task, rng: random.Random) -> Document:
    if rng.random() < _CHAT_SHARE:
        return Document(lead=task.prompt, body=task.good, is_chat=True)
    return Document(lead=f"question: {task.prompt}", body=f"answer: {task.good}")


def _repeats(rng: random.Random) -> str:
    """Words that come again in the same order: nothing teaches a small model to copy sooner."""
    return " ".join(rng.sample(_WORDS, rng.randint(3, 8)) * rng.randint(2, 3))


def _prose(rng: random.Random) -> str:
    kind = rng.randrange(5)
    if kind <= 1:
        facts = list(lex.facts_of(rng.choice(lex.ANIMALS + lex.FOODS + lex.TOOLS)))
        rng.shuffle(facts)
        return " ".join(lex.statement(fact) for fact in facts)
    if kind == 2:
        name, members = rng.choice(tuple(lex.KINDS.items()))
        return f"some {name} are {', '.join(rng.sample(members, 4))}."
    if kind == 3:
        word, opposite = rng.choice(tuple(lex.OPPOSITES.items()))
        present, past = rng.choice(tuple(lex.PAST.items()))
        return f"the opposite of {word} is {opposite}. today one {present} it, and in the past one {past} it."
    return f"{rng.choice(lex.OPENERS)} {' '.join(rng.sample(lex.FILLERS, 2))}"
