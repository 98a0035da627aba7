"""Events on RolloutPools: each change of size, and trouble once as it begins, not at every turn that it lasts."""

import logging
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from onlinerlhf.core.errors import OnlineRLHFError
from onlinerlhf.scaler import metrics
from onlinerlhf.scaler.kinds import DEPLOYMENT, EVENT, ROLLOUT_POOL
from onlinerlhf.scaler.kube import Json, Kube
from onlinerlhf.scaler.kube_errors import kind_of
from onlinerlhf.scaler.view import View

log = logging.getLogger(__name__)

CONTROLLER: Final = "onlinerlhf.dev/scaler"
REPEAT_SECONDS: Final = 600.0
"""Trouble that comes and goes is told again only after this."""
MAX_NOTE_CHARACTERS: Final = 1000
MAX_NAME_CHARACTERS: Final = 200


class Events:
    """Writes events.k8s.io. An event that cannot be written is counted, and no reason to stop."""

    def __init__(self, kube: Kube, *, identity: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._identity = identity[:128]
        self._clock = clock
        self._told: dict[tuple[str, str], float] = {}

    async def resized(self, view: View, *, before: int, after: int, seconds: float) -> None:
        """The Deployment's size was changed."""
        if view.decision is not None:
            note = f"from {before} to {after} replicas: {view.decision.message}"
            await self._write(view, "Normal", view.decision.reason.value, "Resize", note, seconds=seconds)

    async def state(self, view: View, *, seconds: float) -> None:
        """Trouble that is new, or over: compared with what the pool's status says so far."""
        trouble, before = view.trouble, view.degraded_for
        if trouble is not None and trouble.reason != before:
            if self._is_new(view, trouble.reason):
                await self._write(view, "Warning", trouble.reason, "Observe", trouble.message, seconds=seconds)
        elif trouble is None and before is not None and self._is_new(view, "Recovered"):
            await self._write(view, "Normal", "Recovered", "Observe", f"no longer {before}", seconds=seconds)

    def _is_new(self, view: View, reason: str) -> bool:
        now = self._clock()
        self._told = {key: at for key, at in self._told.items() if now - at < REPEAT_SECONDS}
        if (view.uid, reason) in self._told:
            return False
        self._told[view.uid, reason] = now
        return True

    async def _write(self, view: View, kind: str, reason: str, action: str, note: str, *, seconds: float) -> None:
        meta = view.pool["metadata"]
        body: Json = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": f"{view.name[:MAX_NAME_CHARACTERS]}.{uuid.uuid4().hex[:16]}"},
            "eventTime": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "type": kind,
            "reason": reason,
            "action": action,
            "note": note[:MAX_NOTE_CHARACTERS],
            "regarding": {
                "apiVersion": ROLLOUT_POOL.api_version,
                "kind": ROLLOUT_POOL.kind,
                "name": view.name,
                "namespace": meta["namespace"],
                "uid": view.uid,
                "resourceVersion": meta["resourceVersion"],
            },
            "reportingController": CONTROLLER,
            "reportingInstance": self._identity,
        }
        if view.spec is not None:
            body["related"] = {
                "apiVersion": DEPLOYMENT.api_version,
                "kind": DEPLOYMENT.kind,
                "name": view.spec.deployment,
                "namespace": meta["namespace"],
            }
        try:
            await self._kube.create(EVENT, body, timeout_seconds=seconds)
        except OnlineRLHFError as error:
            metrics.ERRORS.labels(kind_of(error)).inc()
            log.warning("event not written", extra={"pool": view.name, "reason": reason, "error": str(error)})
