"""Pods that share a volume which one node at a time may have are kept on one node, and no others are."""

from collections.abc import Mapping
from typing import Any

import pytest

from deploy.helm import SETS, changed, render, rendered
from deploy.objects import Pods, Rendering, matches

ONE_NODE = "ReadWriteOnce"
HOST = "kubernetes.io/hostname"
COMPONENT = "app.kubernetes.io/component"


def ties(pods: Pods) -> list[Mapping[str, Any]]:
    """What the pods must have on their node."""
    affinity = pods.spec.get("affinity", {}).get("podAffinity", {})
    return list(affinity.get("requiredDuringSchedulingIgnoredDuringExecution", []))


def shared_claims(rendering: Rendering) -> dict[str, set[str]]:
    """Claims that one node at a time may have -> components of the pods that mount them."""
    modes = {claim["metadata"]["name"]: claim["spec"]["accessModes"] for claim in rendering.of("PersistentVolumeClaim")}
    found: dict[str, set[str]] = {}
    for pods in rendering.pods():
        for volume in pods.spec.get("volumes", []):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if modes.get(claim) == [ONE_NODE]:
                found.setdefault(claim, set()).add(pods.component)
    return found


@pytest.mark.parametrize("name", SETS)
def test_who_shares_a_volume_of_one_node_is_scheduled_beside_the_others(name: str) -> None:
    rendering = rendered(name)
    users = set().union(*shared_claims(rendering).values())
    for pods in rendering.pods():
        if pods.component not in users:
            assert ties(pods) == [], str(pods)
            continue
        [term] = ties(pods)
        assert term["topologyKey"] == HOST
        beside = {each.component for each in rendering.pods() if matches(term["labelSelector"], each.labels)}
        # Its own labels among them: that is what lets the first pod in.
        assert beside == users, str(pods)


def test_a_volume_for_many_nodes_ties_nobody() -> None:
    rendering = render(changed("minimal", {"models": {"claim": {"accessModes": ["ReadWriteMany"]}}}))
    assert [str(pods) for pods in rendering.pods() if ties(pods)] == []


def test_a_users_own_affinity_stays_beside_it() -> None:
    own = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "cache"}}}
    node = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "Exists"}]}]}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    affinity = {"podAffinity": {required: [own]}, "nodeAffinity": {required: node}}
    rendering = render(changed("minimal", {"reward": {"affinity": affinity}}))
    [reward] = rendering.pods("reward")
    assert [term["topologyKey"] for term in ties(reward)] == ["zone", HOST]
    assert reward.spec["affinity"]["nodeAffinity"] == {required: node}
    assert all(len(ties(pods)) == 1 for pods in rendering.pods("gateway", "rollout", "learner", "models"))
