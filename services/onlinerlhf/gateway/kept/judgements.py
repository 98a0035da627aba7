"""What a client may say about answers that it got, and what is wrong with it. Pure."""

import json
import math
from dataclasses import dataclass
from typing import Final, TypeAlias

from onlinerlhf.core.errors import InvalidInput

MAX_RANKED: Final = 9
"""Answers ranked at once (Ouyang et al. 2022, section 3.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumb:
    """Good or bad."""

    sample_id: str
    up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How good."""

    sample_id: str
    value: float
    """From 0, worst, to 1, best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What the answer should have been."""

    sample_id: str
    text: bytes
    """UTF-8, as sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Answers to one prompt, best first."""

    sample_ids: tuple[str, ...]


Judgement: TypeAlias = Thumb | Score | Correction | Ranking


def samples_of(judgement: Judgement) -> tuple[str, ...]:
    """What is judged; of a ranking in its order."""
    return judgement.sample_ids if isinstance(judgement, Ranking) else (judgement.sample_id,)


def check(judgement: Judgement, *, max_correction_bytes: int) -> None:
    """Raises InvalidInput with what is wrong, before anything is looked up."""
    match judgement:
        case Score(value=value) if not (math.isfinite(value) and 0.0 <= value <= 1.0):
            raise InvalidInput(f"a score is {value}; it must be from 0 to 1", reason="bad_score")
        case Correction(text=text) if len(text) > max_correction_bytes:
            message = f"the correction has {len(text)} bytes; at most {max_correction_bytes} are taken"
            raise InvalidInput(message, reason="too_large")
        case Ranking(sample_ids=ids) if not 2 <= len(ids) <= MAX_RANKED:
            message = f"a ranking of {len(ids)} answers; from 2 to {MAX_RANKED} can be ranked"
            raise InvalidInput(message, reason="bad_ranking")
        case Ranking(sample_ids=ids) if len(set(ids)) != len(ids):
            raise InvalidInput("a ranking names an answer twice", reason="bad_ranking")


def kind_of(judgement: Judgement) -> str:
    """thumb, score, correction or ranking."""
    return type(judgement).__name__.lower()


def value_of(judgement: Judgement) -> str:
    """What is stored of it beside the samples: JSON without any text of the client's."""
    match judgement:
        case Thumb(up=up):
            return json.dumps(up)
        case Score(value=value):
            return json.dumps(value)
        case Correction() | Ranking():
            return "null"


def body_of(judgement: Judgement) -> bytes:
    """What a retry repeats, in an encoding without two readings."""
    parts = (kind_of(judgement).encode(), value_of(judgement).encode(), *(i.encode() for i in samples_of(judgement)))
    text = judgement.text if isinstance(judgement, Correction) else b""
    return b"".join(b"%d:%s" % (len(part), part) for part in (*parts, text))
