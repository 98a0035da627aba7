"""The fake's memory: objects, one counter of resource versions for all of them, and the changes that watches follow."""

import asyncio
import copy
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kube.kinds import CRDS, DEPLOYMENTS, PODS, POOLS, Resource, by_kind

Json = dict[str, Any]


class Refused(Exception):
    """An answer that is no success, as the API server words it."""

    def __init__(self, code: int, reason: str, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.headers = code, reason, headers or {}

    def status(self) -> Json:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
            "code": self.code,
        }


@dataclass(frozen=True)
class Change:
    """One line of the history."""

    version: int
    type: str
    resource: Resource
    object: Json


@dataclass
class Store:
    """All objects, by resource, namespace and name."""

    objects: dict[tuple[Resource, str, str], Json] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)
    version: int = 1000
    forgotten: int = 0
    """Changes up to this version cannot be watched any more."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    listeners: list[Callable[[Change], None]] = field(default_factory=list)

    def get(self, resource: Resource, namespace: str, name: str) -> Json:
        """A copy. Raises Refused (404)."""
        found = self.objects.get((resource, namespace if resource.namespaced else "", name))
        if found is None:
            group = f".{resource.group}" if resource.group else ""
            raise Refused(404, "NotFound", f'{resource.plural}{group} "{name}" not found')
        return copy.deepcopy(found)

    def list(self, resource: Resource, namespace: str, selector: str = "") -> Iterator[Json]:
        """Copies, in the order of their names."""
        for (kind, where, _), found in sorted(self.objects.items(), key=lambda item: item[0][1:]):
            if (
                kind == resource
                and (not namespace or where in (namespace, ""))
                and fits(selector, found["metadata"].get("labels") or {})
            ):
                yield copy.deepcopy(found)

    def create(self, resource: Resource, namespace: str, body: Json) -> Json:
        """Raises Refused (409) where there is one of that name."""
        meta = body.setdefault("metadata", {})
        name = meta.get("name") or meta.get("generateName", "") + uuid.uuid4().hex[:5]
        where = namespace if resource.namespaced else ""
        if (resource, where, name) in self.objects:
            raise Refused(409, "AlreadyExists", f'{resource.plural} "{name}" already exists')
        body |= {"apiVersion": resource.api_version, "kind": resource.kind}
        meta |= {
            "name": name,
            "uid": str(uuid.uuid4()),
            "creationTimestamp": meta.get("creationTimestamp") or now(),
        }
        if resource.namespaced:
            meta["namespace"] = where
        if "spec" in body:
            meta["generation"] = 1
        if resource == CRDS:
            body["status"] = {"conditions": [{"type": "Established", "status": "True"}]}
        return self._write("ADDED", resource, where, name, body)

    def update(self, resource: Resource, namespace: str, name: str, body: Json) -> Json:
        """The object as it shall be. Raises Refused (409) where it names a version or uid that it has not."""
        old, meta = self.get(resource, namespace, name), body["metadata"]
        for key in ("resourceVersion", "uid"):
            if meta.get(key) not in (None, "", old["metadata"][key]):
                raise Refused(
                    409,
                    "Conflict",
                    f'Operation cannot be fulfilled on {resource.plural} "{name}": the object has been modified; '
                    "please apply your changes to the latest version and try again",
                )
        kept = ("uid", "creationTimestamp", "namespace", "name", "generation", "resourceVersion")
        meta |= {key: old["metadata"][key] for key in kept if key in old["metadata"]}
        body |= {"apiVersion": resource.api_version, "kind": resource.kind}
        if body == old:
            return old
        if body.get("spec") != old.get("spec"):
            meta["generation"] = old["metadata"].get("generation", 0) + 1
        return self._write("MODIFIED", resource, namespace if resource.namespaced else "", name, body)

    def delete(self, resource: Resource, namespace: str, name: str) -> Json:
        """At once: there are no finalizers here. A Deployment's pods go with it."""
        where = namespace if resource.namespaced else ""
        body = self.get(resource, namespace, name)
        del self.objects[resource, where, name]
        for pod in list(self.list(PODS, namespace)) if resource == DEPLOYMENTS else []:
            if any(owner["uid"] == body["metadata"]["uid"] for owner in pod["metadata"].get("ownerReferences", [])):
                self.delete(PODS, namespace, pod["metadata"]["name"])
        self._remember("DELETED", resource, body)
        return body

    def forget(self) -> None:
        """Watches that ask for older changes than the next get 410."""
        self.history.clear()
        # Those that have seen everything are behind too.
        self.version += 1
        self.forgotten = self.version
        self.wake()

    def _write(self, change: str, resource: Resource, namespace: str, name: str, body: Json) -> Json:
        self.objects[resource, namespace, name] = body
        self._remember(change, resource, body)
        return copy.deepcopy(body)

    def _remember(self, change: str, resource: Resource, body: Json) -> None:
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        entry = Change(self.version, change, resource, copy.deepcopy(body))
        self.history.append(entry)
        self.wake()
        for listener in self.listeners:
            listener(entry)

    def wake(self) -> None:
        """Let those who wait for a change look again."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


def now() -> str:
    """As metadata has it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def fits(selector: str, labels: Json) -> bool:
    """`a=b,c!=d,e`: equality and existence."""
    for term in filter(None, selector.split(",")):
        key, unequal, value = term.partition("!=")
        if unequal:
            if labels.get(key) == value:
                return False
            continue
        key, _, value = (part.strip("=") for part in term.partition("="))
        if (labels.get(key) != value) if "=" in term else (key not in labels):
            return False
    return True


def selector_of(deployment: Json) -> str:
    """matchLabels as a label selector."""
    labels = deployment["spec"].get("selector", {}).get("matchLabels", {})
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def scale_of(resource: Resource, body: Json) -> Json:
    """The `scale` subresource. Replicas of 0 are left out, as the real one's JSON does."""
    spec, status, meta = body.get("spec", {}), body.get("status", {}), body["metadata"]
    selector = status.get("selector", "") if resource == POOLS else selector_of(body)
    replicas = {"replicas": spec["replicas"]} if spec.get("replicas") else {}
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: meta[key] for key in kept},
        "spec": replicas,
        "status": {"replicas": status.get("replicas", 0), "selector": selector},
    }


__all__ = ["Change", "Json", "Refused", "Store", "by_kind", "fits", "scale_of", "selector_of"]
