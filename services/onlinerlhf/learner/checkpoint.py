"""Checkpoints of the online learner: all it needs to go on as if it had never stopped, and what it has learned from."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from onlinerlhf.core.errors import StartupError
from onlinerlhf.learner.checkpoints import Checkpoints, Content
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.ppo_state import gather, restore, scalars

_FORMAT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedSample:
    """A sample whose gradient a checkpoint contains."""

    entry_id: str
    """Of the stream entry that delivered it."""
    sample_id: str
    version: int
    """The first policy version that contains it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a learner has come."""

    step: int = 0
    version: int = 0
    samples: tuple[LearnedSample, ...] = ()
    """Of the steps since the checkpoint before: those that may not have been acked yet."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """Totals since the run's start, for display."""


class CheckpointStore:
    """The directory of checkpoints. Synchronous: call it off the event loop."""

    def __init__(self, directory: Path, *, keep: int = 2) -> None:
        self._checkpoints = Checkpoints(directory, keep=keep, lost_with=_lost_with)

    def save(self, ppo: PPO, progress: Progress) -> None:
        """Write a checkpoint, then forget the oldest. Raises CheckpointError; what was there stays."""

        def content() -> Content:
            return gather(ppo), {**asdict(progress), "format": _FORMAT, "ppo": scalars(ppo)}

        self._checkpoints.save(progress.step, content)

    def load(self, ppo: PPO) -> Progress | None:
        """Put the newest good checkpoint into the PPO; None: there is none. Broken ones are logged and set aside.

        Raises CheckpointError for one that cannot be read, and StartupError for one of another configuration.
        """
        saved = self._checkpoints.newest()
        if saved is None:
            return None
        state, name = saved.state, saved.path.name
        if state["format"] != _FORMAT:
            raise StartupError(f"{name} has checkpoint format {state['format']}, expected {_FORMAT}")
        try:
            restore(ppo, {part: dict(tensors) for part, tensors in saved.parts.items()}, state["ppo"])
        except (ValueError, KeyError) as error:
            raise StartupError(f"{name} does not fit the configured models: {error}") from error
        return Progress(
            step=state["step"],
            version=state["version"],
            samples=tuple(LearnedSample(**sample) for sample in state["samples"]),
            counters=state["counters"],
        )


def _lost_with(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """How many samples a checkpoint lists at most: those of them that had not been acked are delivered again."""
    samples = state.get("samples")
    return {"max_acked_samples_lacking": len(samples) if isinstance(samples, list) else None}
