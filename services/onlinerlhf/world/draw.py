"""Draws tasks at random."""

import random
from collections.abc import Iterator
from dataclasses import replace

from onlinerlhf.core.samples import UseCase
from onlinerlhf.world.lexicon import MANNERS
from onlinerlhf.world.tasks import Task, is_held_out
from onlinerlhf.world.templates import TEMPLATES


def sample_task(rng: random.Random, use_case: UseCase | None = None) -> Task:
    """Draws a task, of any use case unless one is given."""
    return rng.choice(TEMPLATES[use_case or rng.choice(tuple(UseCase))])(rng)


def training_tasks(rng: random.Random) -> Iterator[Task]:
    """Endless tasks in every manner of asking, none of which a held-out user ever asks: what training may see."""
    while True:
        task = sample_task(rng)
        if not is_held_out(task.prompt):
            yield in_manner(task, rng.choice(MANNERS))


def in_manner(task: Task, manner: str) -> Task:
    """The same task asked in a user's manner."""
    return replace(task, prompt=manner.format(task.prompt))
