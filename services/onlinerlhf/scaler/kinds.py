"""Where kinds of objects live in the Kubernetes API."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Kind:
    """One resource of one version of an API group."""

    group: str
    """Empty: the core group."""
    version: str
    resource: str
    """Plural, as in paths and Roles."""
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As objects name it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """Of the collection, an object or one of its subresources."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root, *(["namespaces", namespace] if self.namespaced else []), self.resource, name, subresource]
        return "/".join(part for part in parts if part)


ROLLOUT_POOL: Final = Kind("onlinerlhf.dev", "v1alpha1", "rolloutpools", "RolloutPool")
DEPLOYMENT: Final = Kind("apps", "v1", "deployments", "Deployment")
POD: Final = Kind("", "v1", "pods", "Pod")
LEASE: Final = Kind("coordination.k8s.io", "v1", "leases", "Lease")
EVENT: Final = Kind("events.k8s.io", "v1", "events", "Event")
