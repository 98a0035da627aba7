"""How far sampling may run ahead of learning, derived from what the learner takes."""

import math
from collections.abc import Mapping

from onlinerlhf.learner.config import LearnerConfig
from onlinerlhf.rollout.config import RolloutConfig


def samples_ahead(sections: Mapping[str, Mapping[str, object]]) -> int:
    """`rollout.max_samples_ahead` such that hardly a sample gets too stale, for sections that do not set it.

    A sample with n batches before it is trained n steps after it was sampled, by a worker that may itself be a version
    behind: n = max_staleness - 1. Samples that are trained but not in a checkpoint yet wait in the stream as well.
    """

    def whole(section: str, key: str, default: object) -> int:
        # What is no whole number is refused, with its name, by the room that reads it.
        value = sections.get(section, {}).get(key, default)
        return value if isinstance(value, int) else int(str(default))

    learner, rollout = LearnerConfig.model_fields, RolloutConfig.model_fields
    batch_size = whole("learner", "batch_size", learner["batch_size"].default)
    max_staleness = whole("learner", "max_staleness", learner["max_staleness"].default)
    checkpoint_every = whole("learner", "checkpoint_every", learner["checkpoint_every"].default)
    num_responses = whole("rollout", "num_responses", rollout["num_responses"].default)
    num_batches = max(1, max_staleness - 1) + max(0, checkpoint_every - 1)
    return math.ceil(num_batches * batch_size / max(1, num_responses))
