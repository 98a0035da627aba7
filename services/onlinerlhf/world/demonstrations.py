"""Demonstrations written by labelers of mixed care: what supervised fine-tuning learns from.

Some ramble, some ignore the form that was asked for, some are wrong. A model fine-tuned on them knows how to answer
well but often does not, which is the room that learning from preferences has.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from onlinerlhf.world.draw import training_tasks
from onlinerlhf.world.lexicon import FILLERS, OPENERS
from onlinerlhf.world.tasks import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Someone who writes demonstrations, with the chance of each habit in one answer."""

    name: str
    rambles: float
    ignores_form: float
    errs: float


WRITERS = (
    Writer(name="careful", rambles=0.05, ignores_form=0.05, errs=0.02),
    Writer(name="talkative", rambles=0.85, ignores_form=0.2, errs=0.03),
    Writer(name="hasty", rambles=0.2, ignores_form=0.45, errs=0.15),
    Writer(name="stubborn", rambles=0.3, ignores_form=0.75, errs=0.05),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """A prompt's task and one labeler's answer to it."""

    task: Task
    answer: str
    writer: str


def demonstrations(*, seed: int) -> Iterator[Demonstration]:
    """Endless demonstrations by all writers in turn, on prompts of the training side only."""
    rng = random.Random(f"demonstrations/{seed}")
    for task in training_tasks(rng):
        writer = rng.choice(WRITERS)
        yield Demonstration(task=task, answer=write(task, writer, rng), writer=writer.name)


def write(task: Task, writer: Writer, rng: random.Random) -> str:
    """One answer by one writer."""
    answer = task.good
    if rng.random() < writer.errs:
        answer = task.wrong
    elif rng.random() < writer.ignores_form:
        answer = task.loose
    if rng.random() < writer.rambles:
        answer = ramble(answer, rng)
    return answer


def ramble(answer: str, rng: random.Random) -> str:
    """The answer among sentences nobody needs."""
    closing = " ".join(rng.sample(FILLERS, rng.randint(1, 2)))
    if rng.random() < 0.3:
        return f"{rng.choice(OPENERS)} {answer}"
    return f"{answer} {closing}"
