"""Whether this worker takes training work, and if not, why. Users are served whenever a version is applied."""

from collections.abc import Callable
from typing import Final

from onlinerlhf.rollout.updater import Updater
from onlinerlhf.runtime.cordon import EMPTYING
from onlinerlhf.runtime.health import Health

_CORDON: Final = "cordon"


class Admission:
    """The floor: not on its way out, a version applied, and not too far behind the newest known one."""

    def __init__(
        self, updater: Updater, *, max_versions_behind: int, is_draining: Callable[[], bool] = lambda: False
    ) -> None:
        self._updater = updater
        self._max_versions_behind = max_versions_behind
        self._is_draining = is_draining

    def refusal(self, version: int) -> str:
        """Why training work must wait; empty: it need not."""
        if self._is_draining():
            return "draining"
        if version == 0:
            return "no policy version applied yet"
        behind = self._updater.versions_behind
        if behind > self._max_versions_behind:
            return f"{behind} versions behind the newest, at most {self._max_versions_behind} allowed"
        return ""


def show_cordon(health: Health, is_cordoned: bool) -> None:
    """A worker that the scaler empties is not for users either: gateways that watch its health ask the others."""
    health.set(_CORDON, ok=not is_cordoned, reason=EMPTYING)


def cordon_shown(health: Health) -> str:
    """EMPTYING, once health has said so to gateways; else empty."""
    return next((part.reason for part in health.components() if part.name == _CORDON), "")
