"""A namespace to test controllers in: on the fake API server, or where ONLINERLHF_TEST_KUBECONFIG is set on a real one.

On a real cluster the pods have an image that nobody has: they are there, and never ready.
"""

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kube.fake_api import FakeApi
from kube.store import Json
from kube.validation import CRD_FILE
from onlinerlhf.core.errors import NotFound
from onlinerlhf.scaler.kinds import DEPLOYMENT, EVENT, LEASE, POD, ROLLOUT_POOL, Kind
from onlinerlhf.scaler.kube import Kube

REAL = "ONLINERLHF_TEST_KUBECONFIG"
CRD = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
NAMESPACE = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
WAIT_SECONDS = 15.0


@dataclass
class Cluster:
    """A namespace, and a user who may do anything in it."""

    kube: Kube
    kubeconfig: Path
    fake: FakeApi | None

    @property
    def namespace(self) -> str:
        return self.kube.namespace

    @property
    def api(self) -> FakeApi:
        """For tests of trouble, which the fake alone makes on demand."""
        assert self.fake is not None, "this test needs the fake API server"
        return self.fake

    async def deploy(self, name: str = "rollout", replicas: int = 1) -> None:
        """A Deployment whose pods do nothing."""
        labels = {"app": name}
        pod = {"containers": [{"name": "none", "image": "onlinerlhf-test-none", "imagePullPolicy": "Never"}]}
        template = {"metadata": {"labels": labels}, "spec": pod}
        spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
        await self.kube.create(DEPLOYMENT, body)

    async def pool(self, name: str = "default", **spec: Any) -> Json:
        """A RolloutPool over the Deployment `rollout`, up to 8, that shrinks at once."""
        spec = {"deploymentName": "rollout", "maxReplicas": 8, "scaleDownSeconds": 0} | spec
        body = {
            "apiVersion": ROLLOUT_POOL.api_version,
            "kind": ROLLOUT_POOL.kind,
            "metadata": {"name": name},
            "spec": spec,
        }
        return await self.kube.create(ROLLOUT_POOL, body)

    async def edit(self, name: str = "default", **spec: Any) -> None:
        """Change a pool's wishes; None removes one."""
        await self.kube.patch(ROLLOUT_POOL, name, {"spec": spec})

    async def replicas(self, name: str = "rollout") -> int:
        """What the Deployment asks for."""
        return int((await self.kube.get(DEPLOYMENT, name))["spec"].get("replicas", 0))

    async def status(self, name: str = "default") -> Json:
        """A pool's; empty while it has none."""
        return dict((await self.kube.get(ROLLOUT_POOL, name)).get("status") or {})

    async def condition(self, type_: str, name: str = "default") -> tuple[str, str]:
        """Status and reason of a pool's condition."""
        found = [each for each in (await self.status(name)).get("conditions", []) if each["type"] == type_]
        return (found[0]["status"], found[0]["reason"]) if found else ("", "")

    async def holder(self, lease: str = "onlinerlhf-scaler") -> str:
        """Who has the lease."""
        try:
            return str((await self.kube.get(LEASE, lease))["spec"].get("holderIdentity", ""))
        except NotFound:
            return ""

    async def events(self) -> list[tuple[str, str]]:
        """Type and reason of each event on a pool, oldest first."""
        found = (await self.kube.list(EVENT))["items"]
        mine = [each for each in found if each.get("regarding", {}).get("kind") == "RolloutPool"]
        return [(each["type"], each["reason"]) for each in sorted(mine, key=lambda each: each["eventTime"])]

    async def pods(self) -> list[Json]:
        """All that are not on their way out."""
        found = (await self.kube.list(POD))["items"]
        return [each for each in found if "deletionTimestamp" not in each["metadata"]]


@asynccontextmanager
async def fake_cluster() -> AsyncIterator[Cluster]:
    """On the fake, with pods that come and go."""
    async with FakeApi() as api, await Kube.connect(api.kubeconfig, field_manager="test") as kube:
        api.run_deployments()
        yield Cluster(kube=kube, kubeconfig=api.kubeconfig, fake=api)


@asynccontextmanager
async def real_cluster() -> AsyncIterator[Cluster]:
    """A namespace of its own on the cluster that the variable names; gone afterwards."""
    kubeconfig, namespace = Path(os.environ[REAL]), f"onlinerlhf-test-{uuid.uuid4().hex[:8]}"
    async with await Kube.connect(kubeconfig, namespace=namespace, field_manager="onlinerlhf-test") as kube:
        await kube.apply(CRD, yaml.safe_load(CRD_FILE.read_text()), force=True)
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        await kube.create(NAMESPACE, body)
        try:
            await eventually("the new kind is served", lambda: _is_served(kube))
            yield Cluster(kube=kube, kubeconfig=kubeconfig, fake=None)
        finally:
            await kube.delete(NAMESPACE, namespace)


async def eventually(what: str, holds: Callable[[], Awaitable[Any]], *, seconds: float = WAIT_SECONDS) -> None:
    """Wait until it does; say what did not."""
    deadline = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.02)


async def _is_served(kube: Kube) -> bool:
    try:
        await kube.list(ROLLOUT_POOL)
    except NotFound:
        return False
    return True
