"""Which epoch's model a training ends with."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

REWARD_SCORE, VALIDATION_LOSS = "reward_score", "validation_loss"


def chosen_epoch(evaluated: Sequence[Mapping[str, float]]) -> int:
    """The epoch (from 1) with the highest reward score, or with the lowest validation loss where none was scored.

    Ouyang et al. 2022, section 3.5: SFT models overfit on validation loss after 1 epoch, but training on improves both
    the reward score and people's preference. Of equal epochs the first.
    """
    if not evaluated:
        raise ValueError("there is no epoch to choose from")
    has_scores = REWARD_SCORE in evaluated[0]
    numbers = [each[REWARD_SCORE] if has_scores else -each[VALIDATION_LOSS] for each in evaluated]
    qualities = [-math.inf if math.isnan(number) else number for number in numbers]
    return 1 + max(range(len(qualities)), key=lambda place: qualities[place])


def reason(record: Mapping[str, Any]) -> str:
    """In plain words, what an epoch was chosen by."""
    if REWARD_SCORE in record:
        return f"the highest reward-model score on validation prompts ({record[REWARD_SCORE]:.3f})"
    return (
        f"the lowest validation loss ({record[VALIDATION_LOSS]:.4f}); give --reward to choose by reward-model score, "
        "which agrees better with people's preferences"
    )
