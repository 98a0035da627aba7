"""NetworkPolicies, evaluated as a cluster would: may this peer open a connection to that one on this port?

A pod that no policy selects for a direction is open in it; one that any selects is closed but for what some policy's
rule allows. A connection needs its source's egress and its target's ingress.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deploy.objects import Object, Pods, matches

NAMESPACE_NAME = "kubernetes.io/metadata.name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A pod somewhere, or an address outside."""

    name: str
    namespace: str | None = None
    """None: no pod, an address outside the cluster's pods."""
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    """Its container ports by name."""
    address: str = "10.1.2.3"

    @classmethod
    def of(cls, pods: Pods, namespace: str) -> "Peer":
        """One of a workload's pods."""
        return cls(name=str(pods), namespace=namespace, labels=pods.labels, ports=pods.ports)


@dataclass(frozen=True, slots=True)
class Network:
    """The policies of one namespace."""

    policies: Sequence[Object]
    namespace: str

    def allows(self, source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
        """Whether a connection comes about."""
        return self._passes("Egress", source, target, target, port, protocol) and self._passes(
            "Ingress", target, source, target, port, protocol
        )

    def _passes(self, direction: str, pod: Peer, other: Peer, target: Peer, port: int, protocol: str) -> bool:
        """The half of it that `pod`'s policies decide."""
        if pod.namespace != self.namespace:
            return True
        selecting = [
            policy["spec"]
            for policy in self.policies
            if matches(policy["spec"].get("podSelector"), pod.labels) and direction in _types(policy["spec"])
        ]
        rules = [rule for spec in selecting for rule in spec.get(direction.lower()) or []]
        peers = "to" if direction == "Egress" else "from"
        return not selecting or any(
            self._names(rule.get(peers), other) and _on_port(rule.get("ports"), target, port, protocol)
            for rule in rules
        )

    def _names(self, selectors: Sequence[Mapping[str, Any]] | None, other: Peer) -> bool:
        """Whether a rule is about this peer; one that names nobody is about everybody."""
        return not selectors or any(self._is(selector, other) for selector in selectors)

    def _is(self, selector: Mapping[str, Any], other: Peer) -> bool:
        if "ipBlock" in selector:
            # Real clusters differ on whether blocks match pods; ours are meant for what is outside.
            block = selector["ipBlock"]
            address = ipaddress.ip_address(other.address)
            inside = address in ipaddress.ip_network(block["cidr"])
            return inside and not any(address in ipaddress.ip_network(part) for part in block.get("except") or [])
        if other.namespace is None:
            return False
        labels = {NAMESPACE_NAME: other.namespace, **other.namespace_labels}
        here = other.namespace == self.namespace
        in_namespace = matches(selector["namespaceSelector"], labels) if "namespaceSelector" in selector else here
        return in_namespace and ("podSelector" not in selector or matches(selector["podSelector"], other.labels))


def _types(spec: Mapping[str, Any]) -> Sequence[str]:
    default = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    return spec.get("policyTypes") or default


def _on_port(ports: Sequence[Mapping[str, Any]] | None, target: Peer, port: int, protocol: str) -> bool:
    if not ports:
        return True
    for each in ports:
        first = each.get("port", port)
        first = target.ports.get(first) if isinstance(first, str) else first
        if (
            each.get("protocol", "TCP") == protocol
            and first is not None
            and first <= port <= each.get("endPort", first)
        ):
            return True
    return False
