"""A Kubernetes API server within the test's process: real HTTP, conflicts and watches, and trouble on demand.

    async with FakeApi() as api:
        api.put({"kind": "Deployment", ...})
        kube = await Kube.connect(api.kubeconfig)

What it keeps of a real one: resource versions and 409, generations, status and scale apart from the rest, merge, JSON
and apply patches, watches with bookmarks and 410, RolloutPools checked against their CRD with its CEL rules, evictions,
logs, 429 with Retry-After. What it lacks: authentication, admission, field ownership, garbage collection beyond a
Deployment's pods.
"""

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import yaml
from aiohttp import web

from kube.deployments import DeploymentController
from kube.kinds import by_kind
from kube.routes import Request, Routes, parse
from kube.store import Json, Refused, Store

NAMESPACE = "onlinerlhf"


@dataclass
class Fault:
    """Requests that are answered otherwise, for so many times (None: always)."""

    fits: Callable[[Request], bool]
    refusal: Refused
    times: int | None


@dataclass
class FakeApi:
    """The server; use it as an async context."""

    namespace: str = NAMESPACE
    requests: list[Request] = field(default_factory=list)
    """All that were made, as a Role would name them; also those that failed."""
    logs: dict[str, str] = field(default_factory=dict)
    """Pod name -> what its log holds."""
    store: Store = field(default_factory=Store)

    def __post_init__(self) -> None:
        self._faults: list[Fault] = []
        self._up = asyncio.Event()
        self._up.set()
        self._answering = asyncio.Event()
        self._answering.set()
        self._closing = False
        self._directory = tempfile.TemporaryDirectory()
        self._routes = Routes(self.store, self.logs, is_open=lambda: self._up.is_set() and not self._closing)
        self._deployments = DeploymentController(self.store)
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.5, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self.kubeconfig.write_text(yaml.safe_dump(self._kubeconfig()))
        self.put({"kind": "Namespace", "metadata": {"name": self.namespace}})
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        await self._deployments.stop()
        self._answering.set()
        self.store.forget()
        if self._runner is not None:
            await self._runner.cleanup()
        self._directory.cleanup()

    @property
    def kubeconfig(self) -> Path:
        """Leads a client here."""
        return Path(self._directory.name) / "kubeconfig"

    def put(self, thing: Json) -> Json:
        """Make or replace an object, status and all, without asking anybody."""
        resource, name = by_kind(thing["kind"]), thing["metadata"]["name"]
        namespace = thing["metadata"].get("namespace", self.namespace)
        try:
            old = self.store.get(resource, namespace, name)
        except Refused:
            return self.store.create(resource, namespace, {**thing, "metadata": dict(thing["metadata"])})
        meta = {**thing["metadata"], "resourceVersion": old["metadata"]["resourceVersion"]}
        return self.store.update(resource, namespace, name, {**thing, "metadata": meta})

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> Json:
        """An object as it is. Raises Refused."""
        return self.store.get(by_kind(kind), namespace or self.namespace, name)

    def objects(self, kind: str, *, namespace: str | None = None) -> list[Json]:
        """All of a kind, by name."""
        return list(self.store.list(by_kind(kind), namespace or self.namespace))

    def delete(self, kind: str, name: str, *, namespace: str | None = None) -> None:
        """Delete an object."""
        self.store.delete(by_kind(kind), namespace or self.namespace, name)

    def run_deployments(self, *, ready_seconds: float = 0.0) -> None:
        """From now on Deployments have the pods they ask for, ready after a while; the cheapest to delete go first."""
        self._deployments.start(ready_seconds=ready_seconds)

    def fail_next(
        self,
        n: int | None,
        status: int,
        *,
        retry_after: int | None = None,
        verb: str | None = None,
        resource: str | None = None,
        subresource: str | None = None,
        name: str | None = None,
    ) -> None:
        """Answer the next n requests that fit (None: all of them) with this status."""

        def fits(request: Request) -> bool:
            wanted = {"verb": verb, "resource": resource, "subresource": subresource, "name": name}
            return all(value is None or getattr(request, key) == value for key, value in wanted.items())

        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        reasons = {403: "Forbidden", 409: "Conflict", 410: "Expired", 429: "TooManyRequests", 404: "NotFound"}
        refusal = Refused(status, reasons.get(status, "InternalError"), f"refused with {status}", headers=headers)
        self._faults.append(Fault(fits, refusal, n))

    def mend(self) -> None:
        """Forget what fail_next ordered."""
        self._faults.clear()

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Within the block every connection breaks, watches too."""
        self._up.clear()
        self.store.wake()
        try:
            yield
        finally:
            self._up.set()

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Within the block requests are taken and not answered."""
        self._answering.clear()
        try:
            yield
        finally:
            self._answering.set()

    def expire_watches(self) -> None:
        """Watches end with 410, and what they asked for is forgotten."""
        self.store.forget()

    def calls(self) -> set[tuple[str, str, str]]:
        """(group, resource[/subresource], verb) of every request so far, as Roles have them."""
        return {(each.group, each.rule, each.verb) for each in self.requests}

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        if not self._up.is_set():
            return self._broken(http)
        if (known := self._routes.discovery(http.path)) is not None:
            return web.json_response(known)
        try:
            request = parse(http)
            self.requests.append(request)
            await self._answering.wait()
            self._fault(request)
            answer = await self._routes.answer(request, http)
        except Refused as refused:
            return web.json_response(refused.status(), status=refused.code, headers=refused.headers)
        return answer if self._up.is_set() else self._broken(http)

    def _broken(self, http: web.Request) -> web.StreamResponse:
        if http.transport is not None:
            http.transport.abort()
        return web.Response(status=503)

    def _fault(self, request: Request) -> None:
        for fault in self._faults:
            if fault.times != 0 and fault.fits(request):
                if fault.times is not None:
                    fault.times -= 1
                raise fault.refusal

    def _kubeconfig(self) -> Json:
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "fake", "user": {"token": "none-needed"}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake", "namespace": self.namespace}}],
            "current-context": "fake",
        }


__all__ = ["NAMESPACE", "FakeApi", "Request"]
