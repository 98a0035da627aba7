"""What the scaler asks of the Kubernetes API: its Role is this table, and no call outside it is made."""

from typing import Final

RBAC: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    ("onlinerlhf.dev", "rolloutpools", ("list", "watch")),
    ("onlinerlhf.dev", "rolloutpools/status", ("patch",)),
    # A watch from "now" needs no list: it begins with every object as it is.
    ("apps", "deployments", ("watch",)),
    ("apps", "deployments/scale", ("get", "patch")),
    ("", "pods", ("list", "patch")),
    ("coordination.k8s.io", "leases", ("create", "get", "update")),
    ("events.k8s.io", "events", ("create",)),
)
"""(API group, resource, verbs), all within the scaler's namespace."""
