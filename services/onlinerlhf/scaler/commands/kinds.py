"""Kinds of objects that the commands know by name, and discovery for whatever else a manifest holds."""

from typing import Final

from onlinerlhf.core.errors import NotFound
from onlinerlhf.scaler.commands.cluster import Cluster, Object
from onlinerlhf.scaler.kinds import Kind

APP: Final = "onlinerlhf"
NAME_LABEL: Final = "app.kubernetes.io/name"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
OURS: Final = f"{NAME_LABEL}={APP}"
"""Selects what the chart made."""

SECRET: Final = Kind("", "v1", "secrets", "Secret")
NAMESPACE: Final = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
STATEFUL_SET: Final = Kind("apps", "v1", "statefulsets", "StatefulSet")
JOB: Final = Kind("batch", "v1", "jobs", "Job")
CRD: Final = Kind(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)


class Kinds:
    """Finds the kinds of a manifest in the cluster's own lists, each list once."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lists: dict[str, list[Object]] = {}

    async def of(self, thing: Object) -> Kind:
        """Raises NotFound for a kind that this cluster does not have."""
        api_version, kind = str(thing["apiVersion"]), str(thing["kind"])
        group, _, version = api_version.rpartition("/")
        for resource in await self._resources(api_version):
            if resource["kind"] == kind and "/" not in resource["name"]:
                return Kind(group, version, resource["name"], kind, namespaced=bool(resource["namespaced"]))
        advice = f": {_ADVICE[group]}" if group in _ADVICE else ""
        raise NotFound(f"this cluster knows no {kind} of {api_version}{advice}")

    def forget(self) -> None:
        """New kinds were installed."""
        self._lists.clear()

    async def _resources(self, api_version: str) -> list[Object]:
        if api_version not in self._lists:
            root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
            try:
                found = await self._cluster.read(root)
            except NotFound:
                found = {}
            self._lists[api_version] = found.get("resources") or []
        return self._lists[api_version]


_ADVICE: Final = {
    "cert-manager.io": "install cert-manager first, or bring certificates in a Secret",
    "monitoring.coreos.com": "install the Prometheus operator first, or leave the monitors out",
    "keda.sh": "install KEDA first, or use the scaler",
    "onlinerlhf.dev": "its CustomResourceDefinition is not installed",
}
