"""The checkers these suites rely on, on small objects of which the answer is known."""

from typing import Any

import pytest

from deploy.network import Network, Peer
from deploy.objects import matches
from deploy.promql import exported, reads
from deploy.restricted import violations

SAFE: dict[str, Any] = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "room",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
    ],
    "volumes": [{"name": "tmp", "emptyDir": {}}],
}


def container(**context: Any) -> dict[str, Any]:
    return {"name": "room", "securityContext": {**SAFE["containers"][0]["securityContext"], **context}}


def test_a_pod_within_the_restricted_profile_has_no_violations() -> None:
    assert violations(SAFE) == []


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ({"hostNetwork": True}, "hostNetwork is set"),
        ({"volumes": [{"name": "node", "hostPath": {"path": "/"}}]}, "volume node is hostPath"),
        ({"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}, "runAsNonRoot is not true"),
        ({"securityContext": {"runAsNonRoot": True}}, "seccomp profile is None"),
        ({"containers": [container(privileged=True)]}, "privileged"),
        ({"containers": [container(allowPrivilegeEscalation=None)]}, "allowPrivilegeEscalation is not false"),
        ({"containers": [container(capabilities={"drop": ["NET_RAW"]})]}, "does not drop ALL capabilities"),
        ({"containers": [container(capabilities={"drop": ["ALL"], "add": ["SYS_PTRACE"]})]}, "SYS_PTRACE"),
        ({"containers": [container(runAsUser=0)]}, "runs as user 0"),
        ({"containers": [container(procMount="Unmasked")]}, "procMount is Unmasked"),
        ({"initContainers": [{"name": "setup"}]}, "initContainers setup: does not drop ALL"),
        ({"containers": [{**container(), "ports": [{"containerPort": 1, "hostPort": 1}]}]}, "has a host port"),
    ],
)
def test_a_pod_outside_it_is_told_what_is_wrong(spec: dict[str, Any], found: str) -> None:
    assert any(found in violation for violation in violations({**SAFE, **spec}))


WEB = Peer(name="web", namespace="here", labels={"app": "web"})
DATA = Peer(name="data", namespace="here", labels={"app": "data"}, ports={"sql": 5432})
STRANGER = Peer(name="web", namespace="there", labels={"app": "web"})
OUTSIDE = Peer(name="outside", address="203.0.113.7")


def policy(target: str | None, **spec: Any) -> dict[str, Any]:
    selector = {} if target is None else {"matchLabels": {"app": target}}
    return {"kind": "NetworkPolicy", "spec": {"podSelector": selector, **spec}}


DENY = policy(None, policyTypes=["Ingress", "Egress"])


def test_without_policies_everything_passes_and_with_the_default_denial_nothing_does() -> None:
    assert Network([], "here").allows(WEB, DATA, 5432)
    assert not Network([DENY], "here").allows(WEB, DATA, 5432)
    assert not Network([DENY], "here").allows(OUTSIDE, WEB, 80)
    assert not Network([DENY], "here").allows(WEB, OUTSIDE, 443)


def test_an_edge_needs_both_of_its_ends_and_its_port() -> None:
    leave = policy("web", policyTypes=["Egress"], egress=[{"to": [{"podSelector": {"matchLabels": {"app": "data"}}}]}])
    enter = policy(
        "data", ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": "sql"}]}]
    )
    assert not Network([DENY, leave], "here").allows(WEB, DATA, 5432)
    assert not Network([DENY, enter], "here").allows(WEB, DATA, 5432)
    both = Network([DENY, leave, enter], "here")
    assert both.allows(WEB, DATA, 5432)
    assert not both.allows(WEB, DATA, 22)
    assert not both.allows(DATA, WEB, 5432)
    assert not both.allows(STRANGER, DATA, 5432)


def test_namespaces_and_addresses_are_told_apart() -> None:
    from_there = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "there"}}}
    inward = Network([DENY, policy("web", ingress=[{"from": [from_there]}])], "here")
    assert inward.allows(STRANGER, WEB, 80)
    assert not inward.allows(OUTSIDE, WEB, 80)
    block = {"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.128/25"]}}
    outward = Network([DENY, policy("web", policyTypes=["Egress"], egress=[{"to": [block]}])], "here")
    assert outward.allows(WEB, OUTSIDE, 443)
    assert not outward.allows(WEB, Peer(name="else", address="203.0.113.200"), 443)


def test_selectors_pick_by_expressions_too() -> None:
    labels = {"app": "web", "tier": "front"}
    assert matches({}, labels)
    assert not matches(None, labels)
    assert matches({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "api"]}]}, labels)
    assert not matches({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, labels)


def test_an_expressions_metrics_and_labels_are_found_by_its_words() -> None:
    expression = (
        'sum by (stage, le) (rate(a_bucket{stage=~"x|y{z}",run!="b c"}[5m])) / on (run) group_left () max(d offset 1h) '
        "unless time() - 1e9 > bool 0.5"
    )
    found = reads(expression)
    assert found.metrics == {"a_bucket", "d"}
    assert found.labels == {"stage", "le", "run"}


def test_the_code_exports_counters_histograms_and_gauges_under_their_series_names() -> None:
    series = exported()
    assert series["onlinerlhf_dead_letters_total"] == {"stage"}
    assert series["onlinerlhf_rpc_seconds_bucket"] == {"method", "code", "le"}
    assert "onlinerlhf_dead_letters" not in series and "onlinerlhf_rpc_seconds" not in series
    assert series["onlinerlhf_stream_oldest_seconds"] == {"stage"}
