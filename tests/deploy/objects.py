"""What a rendering consists of: plain dicts, found by kind and name, and the pod templates inside them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Object: TypeAlias = dict[str, Any]

WORKLOADS: Final = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod")
COMPONENT: Final = "app.kubernetes.io/component"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pods:
    """The pods of one workload."""

    kind: str
    name: str
    """Of the workload."""
    labels: Mapping[str, str]
    """Of the pods, as are the annotations."""
    annotations: Mapping[str, str]
    spec: Object
    owner: Object
    """The workload itself."""

    @property
    def component(self) -> str:
        """gateway, rollout, …"""
        return self.labels.get(COMPONENT, "")

    @property
    def containers(self) -> list[Object]:
        """Those that run, and those that run before."""
        return [*self.spec["containers"], *self.spec.get("initContainers", [])]

    @property
    def main(self) -> Object:
        """The one that the pod is for."""
        found: Object = self.spec["containers"][0]
        return found

    @property
    def ports(self) -> dict[str, int]:
        """Port number by name."""
        return {
            port["name"]: port["containerPort"] for each in self.spec["containers"] for port in each.get("ports", [])
        }

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Rendering:
    """All objects of one release. Equal to itself alone, so that what is made of it can be kept."""

    objects: Sequence[Object]

    def of(self, kind: str) -> list[Object]:
        """Those of one kind."""
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str, name: str) -> Object:
        """The one of this name."""
        found = [each for each in self.of(kind) if each["metadata"]["name"] == name]
        assert len(found) == 1, f"{len(found)} objects {kind}/{name}; there are: {self.names(kind)}"
        return found[0]

    def names(self, kind: str) -> list[str]:
        """Names of one kind."""
        return [each["metadata"]["name"] for each in self.of(kind)]

    def pods(self, *components: str) -> list[Pods]:
        """Pod templates: all, or those of the components named."""
        found = list(_pods(self.objects))
        return [each for each in found if not components or each.component in components]


def _pods(objects: Sequence[Object]) -> Iterator[Pods]:
    for each in objects:
        if each["kind"] not in WORKLOADS:
            continue
        template = each
        if each["kind"] == "CronJob":
            template = each["spec"]["jobTemplate"]["spec"]["template"]
        elif each["kind"] != "Pod":
            template = each["spec"]["template"]
        metadata = template.get("metadata") or {}
        yield Pods(
            kind=each["kind"],
            name=each["metadata"]["name"],
            labels=metadata.get("labels") or {},
            annotations=metadata.get("annotations") or {},
            spec=template["spec"],
            owner=each,
        )


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector picks what has these labels; an empty one picks everything, none nothing."""
    if selector is None:
        return False
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(_meets(expression, labels) for expression in selector.get("matchExpressions") or [])


def _meets(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case unknown:
            raise ValueError(f"no such operator: {unknown}")
