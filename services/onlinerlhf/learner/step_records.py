"""Where a step's numbers go: Prometheus, steps.jsonl, TensorBoard, and Weights & Biases when configured."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onlinerlhf.learner import metrics
from onlinerlhf.learner.step_log import StepLog
from onlinerlhf.learner.training.tracker import Tracker

_log = logging.getLogger(__name__)


class StepRecords:
    """No record that fails stops a step. Synchronous: call it off the event loop."""

    def __init__(self, directory: Path, *, config: Mapping[str, Any]) -> None:
        self._directory = directory
        self._config = config
        self._step_log = StepLog(directory / "steps.jsonl")
        self._tracker: Tracker | None = None

    def resume(self, step: int) -> None:
        """Go on after a step: later ones are forgotten. Raises ConfigError for Weights & Biases that cannot start."""
        self.close()
        self._step_log.truncate(step)
        try:
            self._tracker = Tracker(self._directory, config=self._config, first_step=step)
        except OSError as error:
            _log.error("no TensorBoard: it cannot be written", extra={"error": error.strerror})

    def add(self, numbers: Mapping[str, float]) -> None:
        """One step."""
        metrics.export_step(numbers)
        try:
            self._step_log.append(numbers)
        except OSError as error:
            _log.error("steps.jsonl lacks a step", extra={"step": numbers["step"], "error": error.strerror})
        if self._tracker is not None:
            self._tracker.log(int(numbers["step"]), numbers)

    def close(self) -> None:
        """Write out what is buffered."""
        if self._tracker is not None:
            self._tracker.close()
            self._tracker = None
