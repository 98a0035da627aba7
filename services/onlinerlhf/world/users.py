"""Simulated users: who asks, in what manner, and on which side of the split."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from onlinerlhf.core.samples import UseCase
from onlinerlhf.world.draw import in_manner, sample_task
from onlinerlhf.world.lexicon import MANNERS
from onlinerlhf.world.tasks import Task, is_held_out, normalise

MAX_PROMPTS_A_USER = 200
_MAX_TRIES_A_PROMPT = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A simulated user: an id, a manner of asking, and how much they care for each use case."""

    user_id: str
    manner: str
    weights: tuple[float, ...]
    """One weight a use case, in the order of `UseCase`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserPrompt:
    """A prompt as a user sends it, with the task it stands for."""

    user_id: str
    task: Task

    @property
    def text(self) -> str:
        """The text as sent."""
        return self.task.prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Users apart: nobody is on both sides."""

    train: tuple[User, ...]
    held_out: tuple[User, ...]


def users(seed: int = 0, *, count: int = 60) -> Split:
    """`count` users with different habits, split into train and held-out ones."""
    return split(_user(index, random.Random(f"users/{seed}/{index}")) for index in range(count))


def split(people: Iterable[User]) -> Split:
    """Splits by user id alone, so a user stays on one side whoever else is there."""
    everyone = tuple(people)
    train = tuple(user for user in everyone if not is_held_out(user.user_id))
    held_out = tuple(user for user in everyone if is_held_out(user.user_id))
    return Split(train=train, held_out=held_out)


def prompts(people: Sequence[User], count: int, *, seed: int = 0) -> tuple[UserPrompt, ...]:
    """`count` prompts from these users in turn, all different after normalisation.

    A text belongs to one side of the split by its own hash, so train and held-out users never ask the same thing,
    whichever calls drew their prompts.
    """
    if count > MAX_PROMPTS_A_USER * len(people):
        raise ValueError(f"{len(people)} users ask at most {MAX_PROMPTS_A_USER} prompts each, {count} were wanted")
    rng = random.Random(f"prompts/{seed}")
    seen: set[str] = set()
    return tuple(_new_prompt(people[index % len(people)], rng, seen) for index in range(count))


def _user(index: int, rng: random.Random) -> User:
    weights = tuple(rng.uniform(0.5, 1.5) for _ in UseCase)
    return User(user_id=f"user-{index:03d}", manner=rng.choice(MANNERS), weights=weights)


def _new_prompt(user: User, rng: random.Random, seen: set[str]) -> UserPrompt:
    side = is_held_out(user.user_id)
    for _ in range(_MAX_TRIES_A_PROMPT):
        task = sample_task(rng, rng.choices(tuple(UseCase), user.weights)[0])
        asked = in_manner(task, user.manner)
        key = normalise(asked.prompt)
        if key not in seen and is_held_out(task.prompt) == side:
            seen.add(key)
            return UserPrompt(user_id=user.user_id, task=asked)
    raise ValueError(f"{user.user_id} found no new prompt in {_MAX_TRIES_A_PROMPT} tries; ask for fewer prompts")
