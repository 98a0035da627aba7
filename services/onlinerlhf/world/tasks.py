"""Tasks: a prompt, what its answer needs, and examples of a good and of careless answers."""

import hashlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from onlinerlhf.core.samples import UseCase

_HELD_OUT_PERCENT = 25


class Form(StrEnum):
    """The form a prompt asks for."""

    WORD = "word"
    SENTENCES = "sentences"
    COMMAS = "commas"
    DASHES = "dashes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """At least `count` different ones of `words` belong in the answer."""

    words: frozenset[str]
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What the judge checks."""

    form: Form
    count: int
    """Number of items or sentences asked for."""
    wanted: tuple[Wanted, ...]
    rivals: frozenset[str]
    """Words that make an answer wrong: the other candidates."""
    max_words: int
    """An answer longer than this rambles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One instruction and everything needed to answer or judge it."""

    prompt: str
    use_case: UseCase
    spec: Spec
    good: str
    """An answer with a perfect score."""
    loose: str
    """The right content in a form nobody asked for."""
    wrong: str
    """The right form with wrong content."""


Template = Callable[[random.Random], Task]


def normalise(prompt: str) -> str:
    """The form in which two prompts count as the same: lower case, words only."""
    return " ".join(re.findall(r"[a-z0-9']+", prompt.lower()))


def is_held_out(key: str) -> bool:
    """Whether a normalised prompt text, or a user id, lies on the held-out side. Depends on the key alone."""
    digest = hashlib.sha256(normalise(key).encode()).digest()
    return int.from_bytes(digest[:4], "big") % 100 < _HELD_OUT_PERCENT
