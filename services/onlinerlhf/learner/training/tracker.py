"""Where a training's numbers go: TensorBoard always, Weights & Biases when configured."""

import logging
import math
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch.utils.tensorboard import SummaryWriter

from onlinerlhf.core.errors import ConfigError

_log = logging.getLogger(__name__)


class Tracker:
    """Logs numbers by step. Once it is open, a failure is logged and never stops a training."""

    def __init__(self, directory: Path, *, config: Mapping[str, Any], first_step: int = 0) -> None:
        """ConfigError where Weights & Biases is configured and cannot start.

        `config` is recorded with the run; its `wandb_project`, or else WANDB_PROJECT, names the project. A training
        that goes on after `first_step` steps replaces what an earlier process logged beyond them.
        """
        self._run = _wandb_run(directory, config)
        purge = first_step + 1 if first_step else None
        self._board = SummaryWriter(str(directory / "tensorboard"), purge_step=purge)
        self._failed: set[str] = set()

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of one step, by name; `/` in a name groups them. Those that are not finite are left out."""
        finite = {name: number for name, number in numbers.items() if math.isfinite(number)}
        self._try("TensorBoard", lambda: self._to_board(step, finite))
        if self._run is not None:
            self._try("Weights & Biases", lambda: self._run.log(finite, step=step))

    def close(self) -> None:
        """Write out what is buffered."""
        self._try("TensorBoard", self._board.close)
        if self._run is not None:
            self._try("Weights & Biases", self._run.finish)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _to_board(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, number in numbers.items():
            self._board.add_scalar(name, number, step)
        self._board.flush()

    def _try(self, service: str, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001  Whatever a tracking library raises, the training goes on.
            if service not in self._failed:
                self._failed.add(service)
                _log.warning("tracking failed", extra={"service": service, "error": type(error).__name__})


def _wandb_run(directory: Path, config: Mapping[str, Any]) -> Any:
    """A Weights & Biases run, the same one when a training goes on; None: not configured."""
    project = config.get("wandb_project") or os.environ.get("WANDB_PROJECT")
    if not project:
        return None
    try:
        import wandb
    except ImportError:
        raise ConfigError(
            "Weights & Biases is configured (wandb_project or WANDB_PROJECT) but not installed: "
            "pip install 'onlinerlhf[wandb]', or unset it"
        ) from None
    try:
        return wandb.init(
            project=project, dir=str(directory), config=dict(config), id=_run_id(directory), resume="allow"
        )
    except Exception as error:  # Its errors share no base class.
        raise ConfigError(
            f"Weights & Biases cannot start ({type(error).__name__}): log in with `wandb login`, "
            "set WANDB_MODE=offline, or unset wandb_project and WANDB_PROJECT"
        ) from error


def _run_id(directory: Path) -> str:
    path = directory / "wandb-run-id"
    if not path.exists():
        path.write_text(uuid.uuid4().hex[:12], encoding="utf-8")
    return path.read_text(encoding="utf-8")
