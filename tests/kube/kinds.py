"""What the fake API server serves: the resources of a real one that this project touches."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Resource:
    """One resource: where it lives, and what is special about it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    has_status: bool = False
    has_scale: bool = False
    short_names: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


POOLS = Resource(
    "onlinerlhf.dev", "v1alpha1", "rolloutpools", "RolloutPool", has_status=True, has_scale=True, short_names=("rp",)
)
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment", has_status=True, has_scale=True)
PODS = Resource("", "v1", "pods", "Pod", has_status=True)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
EVENTS = Resource("events.k8s.io", "v1", "events", "Event")
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False, has_status=True)
CRDS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False,
    has_status=True,
)  # fmt: skip

RESOURCES = (
    POOLS,
    DEPLOYMENTS,
    PODS,
    LEASES,
    EVENTS,
    NAMESPACES,
    CRDS,
    Resource("", "v1", "configmaps", "ConfigMap"),
    Resource("", "v1", "secrets", "Secret"),
    Resource("", "v1", "services", "Service", has_status=True),
    Resource("", "v1", "serviceaccounts", "ServiceAccount"),
    Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", has_status=True),
    Resource("", "v1", "nodes", "Node", namespaced=False, has_status=True),
    Resource("apps", "v1", "statefulsets", "StatefulSet", has_status=True, has_scale=True),
    Resource("apps", "v1", "replicasets", "ReplicaSet", has_status=True, has_scale=True),
    Resource("batch", "v1", "jobs", "Job", has_status=True),
    Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", has_status=True),
    Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", has_status=True),
    Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"),
    Resource("networking.k8s.io", "v1", "ingresses", "Ingress", has_status=True),
    Resource("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
)


def by_kind(kind: str) -> Resource:
    """The resource of a kind like `Deployment`."""
    return next(resource for resource in RESOURCES if resource.kind == kind)


def by_path(group: str, version: str, plural: str) -> Resource | None:
    """The resource that a path names."""
    found = (each for each in RESOURCES if (each.group, each.version, each.plural) == (group, version, plural))
    return next(found, None)
