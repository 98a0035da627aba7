"""A tiny controller of Deployments for the fake: pods come, get ready, and go, the cheapest to delete first."""

import asyncio

from kube.kinds import DEPLOYMENTS, PODS
from kube.store import Change, Json, Refused, Store, selector_of

COST = "controller.kubernetes.io/pod-deletion-cost"


class DeploymentController:
    """Off until started."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ready_seconds = 0.0
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._born: dict[str, float] = {}
        self._count = 0

    def start(self, *, ready_seconds: float) -> None:
        """Begin, on what is there already too."""
        self._ready_seconds = ready_seconds
        if self._task is None:
            self._store.listeners.append(self._notice)
            self._task = asyncio.create_task(self._run(), name="fake deployments")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _notice(self, change: Change) -> None:
        if change.resource in (DEPLOYMENTS, PODS):
            self._wake.set()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            waiting = False
            for key in [key for key in self._store.objects if key[0] == DEPLOYMENTS]:
                waiting |= self._reconcile(key[1], key[2])
            try:
                async with asyncio.timeout(0.02 if waiting else 5):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _reconcile(self, namespace: str, name: str) -> bool:
        """One Deployment; whether pods are on their way to be ready."""
        deployment = self._store.get(DEPLOYMENTS, namespace, name)
        wanted = deployment["spec"].get("replicas") or 0
        pods = list(self._store.list(PODS, namespace, selector_of(deployment)))
        for pod in sorted(pods, key=_cheapness)[: max(len(pods) - wanted, 0)]:
            self._store.delete(PODS, namespace, pod["metadata"]["name"])
        for _ in range(wanted - len(pods)):
            self._create(deployment)
        now = asyncio.get_running_loop().time()
        pods = list(self._store.list(PODS, namespace, selector_of(deployment)))
        late = False
        for pod in pods:
            if not is_ready(pod):
                if now - self._born.setdefault(pod["metadata"]["uid"], now) >= self._ready_seconds:
                    pod["status"] |= {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
                    self._store.update(PODS, namespace, pod["metadata"]["name"], pod)
                else:
                    late = True
        ready = sum(is_ready(pod) for pod in self._store.list(PODS, namespace, selector_of(deployment)))
        status = {
            "observedGeneration": deployment["metadata"].get("generation", 1),
            "replicas": len(pods),
            "updatedReplicas": len(pods),
            "readyReplicas": ready,
            "availableReplicas": ready,
        }
        if deployment.get("status") != status:
            try:
                self._store.update(DEPLOYMENTS, namespace, name, {**deployment, "status": status})
            except Refused:
                return True
        return late

    def _create(self, deployment: Json) -> None:
        self._count += 1
        meta, spec = deployment["metadata"], deployment["spec"]
        labels = spec.get("template", {}).get("metadata", {}).get("labels") or spec["selector"]["matchLabels"]
        pod = {
            "metadata": {
                "name": f"{meta['name']}-{self._count:05d}",
                "labels": dict(labels),
                "ownerReferences": [{"kind": "Deployment", "name": meta["name"], "uid": meta["uid"]}],
            },
            "spec": spec.get("template", {}).get("spec", {}),
            "status": {"phase": "Pending", "podIP": "127.0.0.1", "conditions": []},
        }
        self._store.create(PODS, meta["namespace"], pod)


def is_ready(pod: Json) -> bool:
    """Its Ready condition."""
    conditions = pod.get("status", {}).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _cheapness(pod: Json) -> tuple[bool, int, str]:
    """As the ReplicaSet controller ranks: not ready first, then by deletion cost; of equals, the youngest."""
    annotations = pod["metadata"].get("annotations") or {}
    return is_ready(pod), int(annotations.get(COST, "0")), _reversed(pod["metadata"]["name"])


def _reversed(name: str) -> str:
    return "".join(chr(0x10FFFF - ord(letter)) for letter in name)
