"""RolloutPools by their own definition: what the chart makes is accepted, and what cannot work is refused by name."""

import copy
from typing import Any

import pytest
import yaml

from deploy.helm import CHART, SETS, changed, render, rendered, values_of
from deploy.objects import Object
from kube.kinds import POOLS
from kube.store import Refused
from kube.validation import check

POOL: Object = {
    "apiVersion": "onlinerlhf.dev/v1alpha1",
    "kind": "RolloutPool",
    "metadata": {"name": "default", "namespace": "rlhf"},
    "spec": {"deploymentName": "onlinerlhf-rollout-default", "minReplicas": 1, "maxReplicas": 4},
}


def pool(**spec: Any) -> Object:
    made = copy.deepcopy(POOL)
    made["spec"] = {key: value for key, value in {**made["spec"], **spec}.items() if value is not None}
    return made


@pytest.mark.parametrize("name", SETS)
def test_the_definition_takes_every_pool_that_the_chart_makes(name: str) -> None:
    pools = rendered(name).of("RolloutPool")
    assert bool(pools) == bool(rendered(name).pods("scaler"))
    for each in pools:
        check(POOLS, copy.deepcopy(each), None, strict=True)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"deploymentName": None}, "'deploymentName' is a required property"),
        ({"maxReplicas": None}, "'maxReplicas' is a required property"),
        ({"minReplicas": -1}, "-1 is less than the minimum of 0"),
        ({"maxReplicas": 2.5}, "2.5 is not of type 'integer'"),
        ({"replicas": -1}, "-1 is less than the minimum of 0"),
        ({"replicas": 1.5}, "1.5 is not of type 'integer'"),
        ({"replicas": "3"}, "'3' is not of type 'integer'"),
        ({"minReplicas": 5}, "maxReplicas must not be less than minReplicas"),
        ({"samplesPerReplica": 0}, "0 is less than the minimum of 1"),
        ({"usersPerReplica": 0}, "0 is less than the minimum of 1"),
        ({"scaleDownSeconds": -1}, "-1 is less than the minimum of 0"),
        ({"paused": "yes"}, "'yes' is not of type 'boolean'"),
        ({"deploymentName": "Not A Name"}, "does not match"),
        ({"minReplica": 2}, 'unknown field "spec.minReplica"'),
    ],
)
def test_a_pool_that_cannot_work_is_refused_with_the_reason(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused) as refused:
        check(POOLS, pool(**spec), None, strict=True)
    assert said in str(refused.value)


def test_a_pool_keeps_its_deployment_and_may_change_all_else() -> None:
    check(POOLS, pool(maxReplicas=9, replicas=0, paused=True, priority=-3), pool())
    with pytest.raises(Refused, match="deploymentName cannot be changed"):
        check(POOLS, pool(deploymentName="another"), pool())


def test_the_definitions_defaults_are_the_charts() -> None:
    bare = pool(minReplicas=None)
    check(POOLS, bare, None)
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())["rollout"]["pools"]["default"]["autoscaling"]
    for key in ("minReplicas", "usersPerReplica", "scaleDownSeconds", "priority"):
        assert bare["spec"][key] == defaults[key], key


def test_each_pool_of_the_values_is_a_deployment_a_pool_and_a_budget() -> None:
    more = {"rollout": {"pools": {"spot": {"autoscaling": {"minReplicas": 0, "maxReplicas": 9, "priority": -1}}}}}
    rendering = render(changed("minimal", more))
    assert rendering.names("RolloutPool") == ["default", "spot"]
    assert rendering.one("RolloutPool", "spot")["spec"]["deploymentName"] == "onlinerlhf-rollout-spot"
    assert {"onlinerlhf-rollout-default", "onlinerlhf-rollout-spot"} <= set(rendering.names("Deployment"))
    assert "onlinerlhf-rollout-spot" in rendering.names("PodDisruptionBudget")


def test_the_definition_offers_what_kubectl_uses() -> None:
    [definition] = rendered("minimal").of("CustomResourceDefinition")
    spec = definition["spec"]
    assert (spec["group"], spec["names"]["plural"], spec["names"]["shortNames"]) == (
        "onlinerlhf.dev",
        "rolloutpools",
        ["rp"],
    )
    [version] = spec["versions"]
    assert version["name"] == "v1alpha1"
    assert version["subresources"]["scale"] == {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    columns = {column["name"] for column in version["additionalPrinterColumns"]}
    assert columns >= {"Desired", "Replicas", "Ready", "Backlog", "Oldest", "Staleness", "Reason", "Age"}
    undescribed = [path for path in fields(version["schema"]["openAPIV3Schema"]) if path.count(".") > 1]
    assert undescribed == [], "kubectl explain would have nothing to say"


def fields(schema: dict[str, Any], path: str = "") -> list[str]:
    """Paths of fields without a description."""
    found = []
    for key, part in schema.get("properties", {}).items():
        if "description" not in part:
            found.append(f"{path}.{key}")
        found += fields(part, f"{path}.{key}")
        found += fields(part.get("items", {}), f"{path}.{key}[]")
    return found


def test_names_that_look_like_numbers_stay_text() -> None:
    """As a pool of RTX 4090s may well be called, and a namespace by a year."""
    some = values_of("minimal")["rollout"]["pools"]["default"]
    values = changed("minimal", {"fullnameOverride": "rlhf", "rollout": {"pools": {"4090": some, "1e3": some}}})
    rendering = render(values, release="2026", namespace="1234")
    assert {each["metadata"]["name"] for each in rendering.of("RolloutPool")} == {"4090", "1e3", "default"}
    assert {pods.labels["onlinerlhf.dev/pool"] for pods in rendering.pods("rollout")} == {"4090", "1e3", "default"}
    for thing in rendering.objects:
        meta = thing["metadata"]
        assert isinstance(meta["name"], str) and isinstance(meta.get("namespace", ""), str), thing
        assert all(isinstance(value, str) for value in meta.get("labels", {}).values()), thing
    for pods in rendering.pods():
        assert all(isinstance(value, str) for value in pods.labels.values()), str(pods)
