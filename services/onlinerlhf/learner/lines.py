"""The weight lines: what the learner offers under each version's number.

Lines are written one after the other, between two steps: nothing moves the weights or their average meanwhile.
"""

import asyncio
from collections.abc import Mapping

import torch
from torch import Tensor

from onlinerlhf.core.errors import InvalidInput, NotFound
from onlinerlhf.core.weights import Line
from onlinerlhf.learner.config import LearnerConfig
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.ppo_state import exported
from onlinerlhf.learner.publisher import Publisher
from onlinerlhf.learner.versions import VersionStore

_DIRECTORIES = {Line.POLICY: "versions", Line.EMA: "versions-ema"}


class WeightLines:
    """A publisher for each line that this learner has."""

    def __init__(self, publishers: Mapping[Line, Publisher]) -> None:
        self.publishers = publishers

    def named(self, name: str) -> Publisher:
        """Of the line that a request names; empty: the policy's. Raises InvalidInput and NotFound."""
        try:
            line = Line(name or Line.POLICY)
        except ValueError:
            known = ", ".join(Line)
            raise InvalidInput(f"there is no weight line {name[:50]!r}; the lines are {known}", reason="line") from None
        if line not in self.publishers:
            raise NotFound(f"there is no line {line}: no moving average is kept (learner.ema_decay is none)")
        return self.publishers[line]

    async def close_at(self, stop: asyncio.Event) -> None:
        """End the waits for newer versions when the service drains."""
        await stop.wait()
        for publisher in self.publishers.values():
            await publisher.close()


def open_lines(config: LearnerConfig) -> WeightLines:
    """The policy's line, and the average's where one is kept. Nothing is read yet."""
    dtype: torch.dtype = getattr(torch, config.publish_dtype)
    lines = [Line.POLICY] if config.ema_decay is None else list(Line)
    stores = {
        line: VersionStore(config.output_dir / _DIRECTORIES[line], dtype=dtype, keep=config.keep_versions)
        for line in lines
    }
    return WeightLines({line: Publisher(store) for line, store in stores.items()})


def line_tensors(ppo: PPO, line: Line) -> dict[str, Tensor]:
    """A line's weights under the names of a transformers checkpoint, tied ones once (the first of their names).

    With tied embeddings there is no `lm_head.weight`, which is what vLLM's loader expects. Not always copied: no step
    may run until they are written.
    """
    if line is Line.EMA and ppo.ema is None:
        raise NotFound("no moving average is kept")
    return exported(ppo, averaged=line is Line.EMA)
