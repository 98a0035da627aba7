"""How the fake answers: paths and methods of the Kubernetes API -> the store."""

import asyncio
import contextlib
import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml
from aiohttp import web

from kube.kinds import DEPLOYMENTS, NAMESPACES, RESOURCES, Resource, by_kind, by_path
from kube.patches import json_patched, merged
from kube.store import Json, Refused, Store, fits, scale_of
from kube.validation import check

BOOKMARK_SECONDS = 0.3
VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Request:
    """One request as a Role sees it."""

    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    kind: Resource

    @property
    def rule(self) -> str:
        """`deployments/scale`."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def parse(http: web.Request) -> Request:
    """Raises Refused (404) for what no path of the API is."""
    parts = [part for part in http.path.split("/") if part]
    group, version, rest = ("", parts[1], parts[2:]) if parts[:1] == ["api"] else ("", "", [])
    if parts[:1] == ["apis"] and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    resource = by_path(group, version, rest[0]) if rest else None
    if resource is None:
        raise Refused(404, "NotFound", "the server could not find the requested resource")
    name, subresource = (*rest[1:], "", "")[:2]
    verb = VERBS[http.method]
    if verb == "get" and not name:
        verb = "watch" if http.query.get("watch") in ("true", "1") else "list"
    if verb == "delete" and not name:
        verb = "deletecollection"
    return Request(verb, group, resource.plural, subresource, namespace, name, resource)


class Routes:
    """One method a verb."""

    def __init__(self, store: Store, logs: dict[str, str], *, is_open: Callable[[], bool]) -> None:
        self._store = store
        self._logs = logs
        self._is_open = is_open

    async def answer(self, request: Request, http: web.Request) -> web.StreamResponse:
        """Raises Refused."""
        if request.verb == "watch":
            stream = web.StreamResponse(headers={"Content-Type": "application/json"})
            # The client may go away at any time.
            with contextlib.suppress(ConnectionResetError):
                await self._watch(request, http, stream)
            return stream
        if (request.resource, request.subresource) == ("pods", "log"):
            self._store.get(request.kind, request.namespace, request.name)
            return web.Response(text=self._logs.get(request.name, ""))
        body = await _body(http)
        match request.verb:
            case "list":
                return web.json_response(self._list(request, http.query.get("labelSelector", "")))
            case "get":
                return web.json_response(self._view(request))
            case "create" if request.subresource == "eviction":
                return web.json_response(self._evict(request), status=201)
            case "create":
                return web.json_response(self._create(request, http, body), status=201)
            case "update" | "patch":
                return web.json_response(self._change(request, http, body))
            case "delete":
                return web.json_response(self._store.delete(request.kind, request.namespace, request.name))
        gone = [
            each
            for each in self._store.list(request.kind, request.namespace, http.query.get("labelSelector", ""))
            if self._store.delete(request.kind, request.namespace, each["metadata"]["name"])
        ]
        return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success", "code": len(gone) and 200})

    def discovery(self, path: str) -> Json | None:
        """What tools ask before they begin."""
        groups = sorted({(each.group, each.version) for each in RESOURCES if each.group})
        if path == "/version":
            return {"major": "1", "minor": "36", "gitVersion": "v1.36.0-fake"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            found = [
                {"name": group, "versions": [version], "preferredVersion": version}
                for group, version in (
                    (group, {"groupVersion": f"{group}/{version}", "version": version}) for group, version in groups
                )
            ]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}
        for group, version in [("", "v1"), *groups]:
            if path == (f"/apis/{group}/{version}" if group else f"/api/{version}"):
                served = [each for each in RESOURCES if (each.group, each.version) == (group, version)]
                return {
                    "kind": "APIResourceList",
                    "groupVersion": f"{group}/{version}".removeprefix("/"),
                    "resources": [
                        {
                            "name": each.plural,
                            "kind": each.kind,
                            "namespaced": each.namespaced,
                            "shortNames": each.short_names,
                            "verbs": ["get", "list"],
                        }
                        for each in served
                    ],
                }
        return None

    def _list(self, request: Request, selector: str) -> Json:
        items = list(self._store.list(request.kind, request.namespace, selector))
        if request.kind.group != "onlinerlhf.dev":
            # A real one leaves kind and version out of the items of a typed list.
            items = [{key: value for key, value in each.items() if key not in ("kind", "apiVersion")} for each in items]
        return {
            "kind": f"{request.kind.kind}List",
            "apiVersion": request.kind.api_version,
            "metadata": {"resourceVersion": str(self._store.version)},
            "items": items,
        }

    def _view(self, request: Request) -> Json:
        body = self._store.get(request.kind, request.namespace, request.name)
        if request.subresource == "scale":
            return scale_of(self._scalable(request), body)
        return body

    def _create(self, request: Request, http: web.Request, body: Json) -> Json:
        if request.kind.namespaced and request.namespace:
            self._store.get(NAMESPACES, "", request.namespace)
        if request.kind.has_status:
            body.pop("status", None)
        if request.kind == DEPLOYMENTS:
            body.setdefault("spec", {}).setdefault("replicas", 1)
        check(request.kind, body, None, strict=http.query.get("fieldValidation") == "Strict")
        if "dryRun" in http.query:
            return body
        return self._store.create(request.kind, request.namespace, body)

    def _change(self, request: Request, http: web.Request, body: Any) -> Json:
        applies = http.content_type.startswith("application/apply-patch")
        if applies and not http.query.get("fieldManager"):
            raise Refused(400, "BadRequest", "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value")
        try:
            old = self._store.get(request.kind, request.namespace, request.name)
        except Refused as refused:
            if not applies or request.subresource:
                raise refused
            return self._create(request, http, body)
        if request.subresource == "scale":
            return self._rescale(request, http, old, body)
        new = self._patched(request, http, old, body)
        if request.subresource == "status":
            meta = {**old["metadata"], **{key: new["metadata"].get(key) for key in ("resourceVersion", "uid")}}
            new = {**old, "metadata": meta, "status": new.get("status", {})}
        elif request.kind.has_status:
            new = (
                {**new, "status": old["status"]} if "status" in old else {k: v for k, v in new.items() if k != "status"}
            )
        check(request.kind, new, old, strict=http.query.get("fieldValidation") == "Strict")
        if "dryRun" in http.query:
            return new
        return self._store.update(request.kind, request.namespace, request.name, new)

    def _rescale(self, request: Request, http: web.Request, old: Json, body: Any) -> Json:
        scale = self._patched(request, http, scale_of(self._scalable(request), old), body)
        replicas = scale["spec"].get("replicas", 0)
        if isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < 0:
            raise Refused(422, "Invalid", f"Scale is invalid: spec.replicas: Invalid value: {replicas!r}")
        new = copy.deepcopy(old)
        new["metadata"] |= {key: scale["metadata"].get(key) for key in ("resourceVersion", "uid")}
        new.setdefault("spec", {})["replicas"] = replicas
        check(request.kind, new, old)
        return scale_of(request.kind, self._store.update(request.kind, request.namespace, request.name, new))

    def _patched(self, request: Request, http: web.Request, old: Json, body: Any) -> Json:
        if request.verb == "update":
            return {**body, "metadata": {**body.get("metadata", {})}}
        if http.content_type == "application/json-patch+json":
            return json_patched(old, body)
        new: Json = merged(old, body)
        return new

    def _scalable(self, request: Request) -> Resource:
        if not request.kind.has_scale:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        return request.kind

    def _evict(self, request: Request) -> Json:
        pod = self._store.get(request.kind, request.namespace, request.name)
        for budget in self._store.list(by_kind("PodDisruptionBudget"), request.namespace):
            labels = budget["spec"].get("selector", {}).get("matchLabels", {})
            covers = fits(",".join(f"{k}={v}" for k, v in labels.items()), pod["metadata"].get("labels", {}))
            if covers and budget.get("status", {}).get("disruptionsAllowed") == 0:
                raise Refused(
                    429,
                    "TooManyRequests",
                    "Cannot evict pod as it would violate the pod's disruption budget.",
                    headers={"Retry-After": "1"},
                )
        self._store.delete(request.kind, request.namespace, request.name)
        return {"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 201}

    async def _watch(self, request: Request, http: web.Request, stream: web.StreamResponse) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + float(http.query.get("timeoutSeconds", "300"))
        version = int(http.query.get("resourceVersion") or 0)
        await stream.prepare(http)
        if version == 0:
            for thing in self._store.list(request.kind, request.namespace):
                await _send(stream, "ADDED", thing)
            version = self._store.version
        bookmarked = loop.time()
        while self._is_open() and loop.time() < deadline:
            if version < self._store.forgotten:
                gone = Refused(410, "Expired", f"too old resource version: {version} ({self._store.forgotten})")
                await _send(stream, "ERROR", gone.status())
                return
            changed = self._store.changed
            for change in [each for each in self._store.history if each.version > version]:
                version = change.version
                if (
                    change.resource == request.kind
                    and change.object["metadata"].get("namespace", "") == request.namespace
                ):
                    await _send(stream, change.type, change.object)
            if loop.time() - bookmarked > BOOKMARK_SECONDS and http.query.get("allowWatchBookmarks") == "true":
                mark = {"kind": request.kind.kind, "metadata": {"resourceVersion": str(version)}}
                await _send(stream, "BOOKMARK", mark)
                bookmarked = loop.time()
            try:
                async with asyncio.timeout(min(BOOKMARK_SECONDS, max(deadline - loop.time(), 0.01))):
                    await changed.wait()
            except TimeoutError:
                continue
        if not self._is_open() and http.transport is not None:
            http.transport.abort()


async def _send(stream: web.StreamResponse, change: str, thing: Json) -> None:
    await stream.write(json.dumps({"type": change, "object": thing}).encode() + b"\n")


async def _body(http: web.Request) -> Any:
    data = await http.read()
    if not data:
        return {}
    try:
        return yaml.safe_load(data) if http.content_type.endswith("yaml") else json.loads(data)
    except (ValueError, yaml.YAMLError):
        raise Refused(400, "BadRequest", "the body is neither JSON nor YAML") from None
