"""The objects fit together: selectors find pods, targets exist, sizes have one owner, roles match the calls."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.helm import SETS, rendered, values_of
from deploy.objects import Object, Pods, Rendering, matches
from deploy.rooms import ROOMS, settings
from onlinerlhf.core.samples import Stage
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.scaler.verbs import RBAC


def selected(rendering: Rendering, labels: dict[str, str]) -> list[Pods]:
    return [pods for pods in rendering.pods() if matches({"matchLabels": labels}, pods.labels)]


def scaled(rendering: Rendering) -> dict[str, list[str]]:
    """Workloads whose size somebody else sets, and who."""
    owners: dict[str, list[str]] = {}
    for each in rendering.of("HorizontalPodAutoscaler") + rendering.of("ScaledObject"):
        owners.setdefault(each["spec"]["scaleTargetRef"]["name"], []).append(each["kind"])
    for each in rendering.of("RolloutPool"):
        owners.setdefault(each["spec"]["deploymentName"], []).append(each["kind"])
    return owners


@pytest.mark.parametrize("name", SETS)
def test_a_workloads_selector_finds_its_own_pods_and_no_others(name: str) -> None:
    rendering = rendered(name)
    for pods in rendering.pods():
        if pods.kind in ("Deployment", "StatefulSet"):
            labels = pods.owner["spec"]["selector"]["matchLabels"]
            assert [str(each) for each in selected(rendering, labels)] == [str(pods)]
            assert labels["app.kubernetes.io/instance"]


@pytest.mark.parametrize("name", SETS)
def test_services_find_pods_of_one_component_and_ports_that_these_have(name: str) -> None:
    rendering = rendered(name)
    for service in rendering.of("Service"):
        found = selected(rendering, service["spec"]["selector"])
        assert len({pods.component for pods in found}) == 1, service["metadata"]["name"]
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            assert all(target in pods.ports or target in pods.ports.values() for pods in found), port


@pytest.mark.parametrize("name", SETS)
def test_a_stateful_set_has_the_headless_service_it_names(name: str) -> None:
    rendering = rendered(name)
    for workload in rendering.of("StatefulSet"):
        assert rendering.one("Service", workload["spec"]["serviceName"])["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize("name", SETS)
def test_every_workload_has_one_budget_that_lets_a_node_be_drained(name: str) -> None:
    rendering = rendered(name)
    covered: list[str] = []
    for budget in rendering.of("PodDisruptionBudget"):
        spec = budget["spec"]
        assert spec["maxUnavailable"] == 1
        assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        covered += [str(pods) for pods in selected(rendering, spec["selector"]["matchLabels"])]
    assert sorted(covered) == sorted(str(pods) for pods in rendering.pods() if pods.kind != "Job")


@pytest.mark.parametrize("name", SETS)
def test_network_policies_select_pods_that_exist(name: str) -> None:
    rendering = rendered(name)
    for policy in rendering.of("NetworkPolicy"):
        found = [pods for pods in rendering.pods() if matches(policy["spec"]["podSelector"], pods.labels)]
        assert found, policy["metadata"]["name"]


@pytest.mark.parametrize("name", SETS)
def test_a_size_has_one_owner_and_who_is_scaled_names_none_itself(name: str) -> None:
    rendering = rendered(name)
    owners = scaled(rendering)
    assert all(len(kinds) == 1 for kinds in owners.values()), owners
    assert set(owners) <= set(rendering.names("Deployment"))
    for workload in rendering.of("Deployment") + rendering.of("StatefulSet"):
        assert ("replicas" in workload["spec"]) == (workload["metadata"]["name"] not in owners)


@pytest.mark.parametrize("name", SETS)
def test_every_rollout_pool_is_one_deployment_and_the_run_has_one_learner(name: str) -> None:
    rendering = rendered(name)
    workers = rendering.pods("rollout")
    assert {pods.kind for pods in workers} == {"Deployment"}
    assert len({pods.labels["onlinerlhf.dev/pool"] for pods in workers}) == len(workers)
    for pool in rendering.of("RolloutPool"):
        [pods] = [each for each in workers if each.name == pool["spec"]["deploymentName"]]
        assert pods.labels["onlinerlhf.dev/pool"] == pool["metadata"]["name"]
    [learner] = rendering.pods("learner")
    assert (learner.kind, learner.owner["spec"]["replicas"]) == ("StatefulSet", 1)
    assert learner.owner["spec"]["volumeClaimTemplates"]
    for service in rendering.of("Service"):
        if service["spec"]["selector"].get("app.kubernetes.io/component") == "rollout":
            assert len(selected(rendering, service["spec"]["selector"])) == len(workers)


@pytest.mark.parametrize("name", SETS)
def test_workers_are_replaced_before_others_start_and_gateways_after(name: str) -> None:
    rendering = rendered(name)
    for pods in rendering.pods("rollout"):
        assert pods.owner["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0
    for pods in rendering.pods("gateway"):
        assert pods.owner["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


@pytest.mark.parametrize("name", SETS)
def test_replicas_are_spread_over_nodes_and_no_pod_waits_for_a_second_node(name: str) -> None:
    rendering = rendered(name)
    for pods in rendering.pods("gateway", "rollout", "scaler"):
        constraints = pods.spec["topologySpreadConstraints"]
        assert "kubernetes.io/hostname" in {each["topologyKey"] for each in constraints}
        for each in constraints:
            assert each["whenUnsatisfiable"] == "ScheduleAnyway"
            assert matches(each["labelSelector"], pods.labels)


@pytest.mark.parametrize("name", SETS)
def test_the_gateway_never_falls_below_two(name: str) -> None:
    rendering = rendered(name)
    fewest = [each["spec"]["minReplicas"] for each in rendering.of("HorizontalPodAutoscaler")]
    fixed = [pods.owner["spec"]["replicas"] for pods in rendering.pods("gateway") if "replicas" in pods.owner["spec"]]
    assert min(fewest + fixed) >= 2


@pytest.mark.parametrize("name", SETS)
def test_the_scalers_role_is_what_its_code_asks_for_and_nobody_else_has_one(name: str) -> None:
    rendering = rendered(name)
    assert not rendering.of("ClusterRole") and not rendering.of("ClusterRoleBinding")
    scalers = rendering.pods("scaler")
    if not scalers:
        assert not rendering.of("Role") and not rendering.of("RoleBinding")
        return
    [role], [binding], [pods] = rendering.of("Role"), rendering.of("RoleBinding"), scalers
    assert calls(role) == {(group, resource, verb) for group, resource, verbs in RBAC for verb in verbs}
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    [subject] = binding["subjects"]
    assert subject == {"kind": "ServiceAccount", "name": pods.spec["serviceAccountName"], "namespace": "rlhf"}
    assert len({each.spec["serviceAccountName"] for each in rendering.pods(*ROOMS)}) == len(
        {each.component for each in rendering.pods(*ROOMS)}
    )


def calls(role: Object) -> set[tuple[str, str, str]]:
    """Every call that a role allows."""
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize("name", SETS)
def test_service_accounts_exist_and_hold_no_token_by_default(name: str) -> None:
    rendering = rendered(name)
    accounts: dict[str, dict[str, Any]] = {each["metadata"]["name"]: each for each in rendering.of("ServiceAccount")}
    for pods in rendering.pods():
        assert pods.spec["serviceAccountName"] in accounts
    assert all(each["automountServiceAccountToken"] is False for each in accounts.values())


def references(value: Any) -> Iterator[tuple[str, str, str]]:
    """(kind, name, key) of every object that a pod's spec names; the key may be empty."""
    if isinstance(value, list):
        for each in value:
            yield from references(each)
    if not isinstance(value, dict):
        return
    for word, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
        if word in value:
            yield kind, value[word]["name"], value[word]["key"]
    if "secretName" in value:
        yield "Secret", value["secretName"], ""
        yield from (("Secret", value["secretName"], item["key"]) for item in value.get("items", []))
    if "configMap" in value:
        yield "ConfigMap", value["configMap"]["name"], ""
    if "claimName" in value:
        yield "PersistentVolumeClaim", value["claimName"], ""
    for each in value.values():
        yield from references(each)


@pytest.mark.parametrize("name", SETS)
def test_what_pods_refer_to_exists_or_was_named_by_the_values(name: str) -> None:
    rendering, given = rendered(name), json.dumps(values_of(name))
    # cert-manager makes those.
    made = {each["spec"]["secretName"] for each in rendering.of("Certificate")}
    for pods in rendering.pods():
        for kind, wanted, key in references(pods.spec):
            if wanted in rendering.names(kind):
                found = rendering.one(kind, wanted)
                assert not key or key in {**found.get("data", {}), **found.get("stringData", {})}, (str(pods), key)
            else:
                assert f'"{wanted}"' in given or wanted in made, (str(pods), kind, wanted)


def test_keda_knows_the_backlogs_stream_and_a_password_that_exists() -> None:
    rendering = rendered("keda")
    [authentication] = rendering.of("TriggerAuthentication")
    [secret] = authentication["spec"]["secretTargetRef"]
    assert secret["key"] in rendering.one("Secret", secret["name"])["data"]
    [scaled_object] = rendering.of("ScaledObject")
    [trigger] = scaled_object["spec"]["triggers"]
    [pods] = rendering.pods("gateway")
    run, _ = settings(rendering, pods)
    assert trigger["metadata"]["stream"] == RunKeys(run.id).stream(Stage.PROMPTS)
    assert run.redis_url.get_secret_value().rpartition("@")[2].startswith(trigger["metadata"]["address"])
    # By length, never by lag: lag leaves out what workers hold.
    assert {"streamLength"} == {
        key for key in trigger["metadata"] if key in ("streamLength", "lagCount", "pendingEntriesCount")
    }


@pytest.mark.parametrize("name", SETS)
def test_our_redis_appends_evicts_nothing_and_asks_for_a_password(name: str) -> None:
    rendering = rendered(name)
    for pods in rendering.pods("redis"):
        volumes = {each["name"]: each for each in pods.spec["volumes"]}
        texts = [
            rendering.one("ConfigMap", each["configMap"]["name"])["data"]
            for each in volumes.values()
            if "configMap" in each
        ]
        [conf] = [text["redis.conf"] for text in texts if "redis.conf" in text]
        said = dict(line.split(maxsplit=1) for line in conf.splitlines() if line.strip() and not line.startswith("#"))
        assert (said["appendonly"], said["maxmemory-policy"]) == ("yes", "noeviction")
        assert said["include"].startswith(tuple(each["mountPath"] for each in pods.main["volumeMounts"]))
        limit = int(pods.main["resources"]["limits"]["memory"].removesuffix("Mi"))
        assert int(said["maxmemory"].removesuffix("mb")) <= 0.8 * limit
        assert pods.owner["spec"]["volumeClaimTemplates"]
    assert bool(rendering.pods("redis")) == (name != "external-redis")
