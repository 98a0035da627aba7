"""What a turn begins with: pools, sizes and pods from Kubernetes, pipeline and workers from the run."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Protocol

from onlinerlhf.core.errors import InvalidInput, LimitReached, NotFound, OnlineRLHFError, PermissionDenied
from onlinerlhf.scaler import metrics
from onlinerlhf.scaler.cordon import staying
from onlinerlhf.scaler.kinds import DEPLOYMENT, POD, ROLLOUT_POOL
from onlinerlhf.scaler.kube import Kube
from onlinerlhf.scaler.kube_errors import ApiAway, Conflict, kind_of
from onlinerlhf.scaler.observation import Pipeline, Pod, Worker
from onlinerlhf.scaler.pools import living, pod_of, rivals, scale_of, spec_of
from onlinerlhf.scaler.view import Trouble, View, without_signals

log = logging.getLogger(__name__)

SIGNAL_SECONDS: Final = 15.0
"""Of all signals of a turn together."""


class Signals(Protocol):
    """What the run tells of itself."""

    async def pipeline(self) -> Pipeline:
        """The backlog and the learner. Raises Unavailable."""
        ...

    async def workers(self, pods: Sequence[Pod]) -> tuple[Worker, ...]:
        """What each pod has in hand. Raises Unavailable."""
        ...

    async def cordon(self, workers: Sequence[str], *, lift: Sequence[str]) -> None:
        """These get nothing new for a while; those to `lift` do again. Raises Unavailable."""
        ...


async def read_pools(kube: Kube) -> list[View]:
    """All pools, each with its Deployment's size and pods or with what is wrong. Raises where none can be read."""
    found = await kube.list(ROLLOUT_POOL)
    taken = rivals(found["items"])
    views = [View(pool=pool) for pool in found["items"] if not pool["metadata"].get("deletionTimestamp")]
    for view in views:
        try:
            await _read(kube, view, taken.get(view.name))
        except LimitReached:
            # The server asks to be left alone: so are the other pools.
            raise
        except OnlineRLHFError as error:
            note(view, error)
    return views


def note(view: View, error: OnlineRLHFError) -> None:
    """The error becomes the pool's trouble; the other pools go on."""
    metrics.ERRORS.labels(kind_of(error)).inc()
    view.trouble = Trouble(reason=_reason(error), message=str(error))
    # A warning as it begins: the status, Events and metrics tell that it lasts.
    level = logging.DEBUG if view.degraded_for == view.trouble.reason else logging.WARNING
    log.log(level, "trouble with a pool", extra={"pool": view.name, "kind": kind_of(error), "reason": str(error)})
    view.problem = error


async def _read(kube: Kube, view: View, rival: str | None) -> None:
    spec = spec_of(view.pool)
    if rival is not None:
        message = f"deployment {spec.deployment} belongs to the older pool {rival}"
        view.trouble = Trouble(reason="DeploymentTaken", message=message)
        return
    view.spec = spec
    try:
        view.scale = scale_of(await kube.get(DEPLOYMENT, spec.deployment, subresource="scale"))
    except NotFound:
        view.trouble = Trouble(reason="DeploymentMissing", message=f"there is no deployment {spec.deployment} here")
        return
    if not view.scale.selector:
        # An empty selector would select every pod of the namespace.
        view.scale = None
        raise InvalidInput(f"deployment {spec.deployment} has no selector for its pods")
    view.pods = living((await kube.list(POD, selector=view.scale.selector))["items"])
    view.workers = without_signals([pod_of(pod) for pod in view.pods])


async def read_signals(signals: Signals, views: Sequence[View]) -> tuple[Pipeline | None, Trouble | None]:
    """The pipeline, and each view's workers. None: the signals are away, and the second value says why."""
    pods = [pod_of(pod) for view in views for pod in view.pods]
    try:
        async with asyncio.timeout(SIGNAL_SECONDS):
            pipeline = await signals.pipeline()
            workers = {worker.name: worker for worker in await signals.workers(pods)}
    except TimeoutError:
        return None, _lack("timeout", f"the run's signals took longer than {SIGNAL_SECONDS:g} s")
    except OnlineRLHFError as error:
        return None, lack_of(error)
    for view in views:
        view.workers = tuple(workers.get(worker.name, worker) for worker in view.workers)
        if view.scale is not None:
            view.workers = staying(view.workers, view.scale.replicas)
    return pipeline, None


def lack_of(error: OnlineRLHFError) -> Trouble:
    """The run could not be asked or told: trouble of all pools."""
    return _lack(kind_of(error), str(error))


def _lack(kind: str, message: str) -> Trouble:
    metrics.ERRORS.labels(f"signals_{kind}").inc()
    log.warning("no signals", extra={"reason": message})
    return Trouble(reason="SignalsMissing", message=message)


def _reason(error: OnlineRLHFError) -> str:
    match error:
        case InvalidInput():
            return "InvalidSpec"
        case PermissionDenied():
            return "Forbidden"
        case Conflict():
            return "Conflict"
        case ApiAway():
            return "ApiServerTrouble"
    return "KubernetesError"
