"""The operator's commands on a fake cluster, and what controllers would do there meanwhile."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from click.testing import CliRunner

from kube.fake_api import FakeApi
from kube.store import Json
from onlinerlhf.cli import OneLineErrors
from onlinerlhf.cli_k8s import k8s

LABELS = {"app.kubernetes.io/name": "onlinerlhf", "app.kubernetes.io/instance": "onlinerlhf"}


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    output: str


async def run(api: FakeApi, *arguments: str, namespace: str | None = None) -> Ran:
    """`onlinerlhf k8s …`, in a thread, for it has a loop of its own."""
    options = ["--kubeconfig", str(api.kubeconfig), "-n", namespace or api.namespace]
    group = OneLineErrors(name="k8s", commands=dict(k8s.commands))
    found = await asyncio.to_thread(CliRunner().invoke, group, [arguments[0], *options, *arguments[1:]])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return Ran(found.exit_code, found.output)


@asynccontextmanager
async def meanwhile(work: Callable[[], None]) -> AsyncIterator[None]:
    """Do this again and again, as a controller would."""

    async def loop() -> None:
        while True:
            work()
            await asyncio.sleep(0.02)

    task = asyncio.create_task(loop(), name="controller")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def bring_up(api: FakeApi, namespace: str) -> None:
    """All workloads are ready, as if kubelets had started them."""
    for kind in ("Deployment", "StatefulSet"):
        for thing in api.objects(kind, namespace=namespace):
            num = thing["spec"].get("replicas", 1)
            status = {"observedGeneration": thing["metadata"]["generation"], "readyReplicas": num}
            status |= {"replicas": num, "updatedReplicas": num, "availableReplicas": num}
            api.put({**thing, "status": status})
    for job in api.objects("Job", namespace=namespace):
        api.put({**job, "status": {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}})


def obey(api: FakeApi) -> None:
    """A scaler that does at once what operators ask of it."""
    for pool in api.objects("RolloutPool"):
        spec, old = pool["spec"], pool.get("status", {})
        size = old.get("replicas", 1) if spec.get("paused") else spec.get("replicas", spec["minReplicas"])
        reason = "Paused" if spec.get("paused") else "Fixed" if "replicas" in spec else "AtMinimum"
        status = old | {"observedGeneration": pool["metadata"]["generation"], "reason": reason, "message": "so be it"}
        api.put({**pool, "status": status | {"replicas": size, "readyReplicas": size, "desiredReplicas": size}})


def put_lease(api: FakeApi, *, age_seconds: float = 1.0, holder: str = "scaler-a") -> None:
    """As its leader renewed it."""
    renewed = datetime.now(UTC) - timedelta(seconds=age_seconds)
    spec = {"holderIdentity": holder, "renewTime": renewed.isoformat(), "leaseDurationSeconds": 15}
    api.put({"kind": "Lease", "metadata": {"name": "onlinerlhf-scaler"}, "spec": spec})


def put_pool(api: FakeApi, name: str = "default", *, status: Json | None = None, **spec: Any) -> None:
    """A RolloutPool of one to four workers."""
    spec = {"deploymentName": f"onlinerlhf-rollout-{name}", "minReplicas": 1, "maxReplicas": 4, **spec}
    pool = {"kind": "RolloutPool", "metadata": {"name": name}, "spec": spec}
    api.put(pool | ({"status": status} if status is not None else {}))


def put_deployment(api: FakeApi, component: str, *, replicas: int = 1, ready: int | None = None) -> None:
    """A room's."""
    labels = {**LABELS, "app.kubernetes.io/component": component}
    num = replicas if ready is None else ready
    api.put(
        {
            "kind": "Deployment",
            "metadata": {"name": f"onlinerlhf-{component}", "labels": labels},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}},
            },
            "status": {
                "observedGeneration": 1,
                "replicas": replicas,
                "updatedReplicas": replicas,
                "availableReplicas": num,
                "readyReplicas": num,
            },
        }
    )


def put_pod(api: FakeApi, name: str, component: str, *, status: Json | None = None, **spec: Any) -> None:
    """A room's pod, ready unless its status says otherwise."""
    labels = {**LABELS, "app.kubernetes.io/component": component}
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    meta = {"name": name, "labels": labels}
    spec = {"containers": [{"name": component, "image": "none"}], **spec}
    api.put({"kind": "Pod", "metadata": meta, "spec": spec, "status": ready if status is None else status})
