"""Pretraining text: the world's facts as prose, repeated words, and questions that strangers answered.

Strangers know what they are talking about, and mind what was asked for even less than those who write demonstrations.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from onlinerlhf.world import lexicon as lex
from onlinerlhf.world.demonstrations import Writer, write
from onlinerlhf.world.draw import training_tasks
from onlinerlhf.world.tasks import Task

_PROSE_SHARE = 0.2
_REPEATS_SHARE = 0.15
_CHAT_SHARE = 0.5
_NAMED_SHARE = 0.5
_SECOND_SHARE = 0.3
STRANGERS = (
    Writer(name="in a school book", rambles=0.4, ignores_form=0.8, errs=0.02),
    Writer(name="in a letter", rambles=0.9, ignores_form=0.6, errs=0.05),
    Writer(name="on a wall", rambles=0.6, ignores_form=0.7, errs=0.1),
)
"""Whose answers are found in the pretraining text, by where they stand."""
SOURCES = tuple(stranger.name for stranger in STRANGERS)
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
            yield _exercise(tasks, rng)


def _exercise(tasks: Iterator[Task], rng: random.Random) -> Document:
    """A question with a stranger's answer: a conversation, or a page that may hold another one by the same hand."""
    task, stranger = next(tasks), rng.choice(STRANGERS)
    if rng.random() < _CHAT_SHARE:
        return Document(lead=task.prompt, body=write(task, stranger, rng), is_chat=True)
    source = f"{stranger.name}: " if rng.random() < _NAMED_SHARE else ""
    before = ""
    if rng.random() < _SECOND_SHARE:
        first = next(tasks)
        before = f"{source}question: {first.prompt}\nanswer: {write(first, stranger, rng)}\n"
    return Document(lead=f"{before}{source}question: {task.prompt}", body=f"answer: {write(task, stranger, rng)}")


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
