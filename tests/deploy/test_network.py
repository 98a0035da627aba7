"""The network policies let through what the code calls, and nothing else: every pair of pods, on every port."""

import pytest

from deploy.helm import NAMESPACE, SETS, changed, render, rendered
from deploy.network import Network, Peer
from deploy.objects import Pods, Rendering, matches
from deploy.rooms import ROOMS, settings
from onlinerlhf.gateway.config import GatewayConfig
from onlinerlhf.scaler.config import ScalerConfig

REDIS_PORT = 6379
SSH = 22
STRANGERS = (
    Peer(name="another pod here", namespace=NAMESPACE, labels={"app": "else"}),
    Peer(name="a pod elsewhere", namespace="default", labels={"app.kubernetes.io/name": "onlinerlhf"}),
    Peer(name="the internet", address="203.0.113.7"),
)
MONITORING = Peer(name="prometheus", namespace="monitoring", labels={"app.kubernetes.io/name": "prometheus"})
DNS = Peer(name="dns", namespace="kube-system", labels={"k8s-app": "kube-dns"})
KEDA = Peer(name="keda", namespace="keda", labels={"app": "keda-operator"})
API_SERVER = Peer(name="the API server", address="192.0.2.1")

Edge = tuple[str, str, int]


def port_of(address: str | None) -> int:
    return int(str(address).rpartition(":")[2])


def behind(rendering: Rendering, target: str) -> tuple[list[Pods], int]:
    """Pods and their port that a gRPC target leads to, by way of its Service."""
    host, _, port = target.removeprefix("dns:///").rpartition(":")
    name, namespace = host.split(".")[:2]
    assert namespace == NAMESPACE
    service = rendering.one("Service", name)
    assert service["spec"]["clusterIP"] == "None", f"{name} would tie each client to one pod"
    [target_port] = [each["targetPort"] for each in service["spec"]["ports"] if each["port"] == int(port)]
    found = [each for each in rendering.pods() if matches({"matchLabels": service["spec"]["selector"]}, each.labels)]
    assert found
    return found, found[0].ports[target_port]


def edges_by_the_code(rendering: Rendering) -> set[Edge]:
    """(pod, pod, port) of every connection that the rooms' settings make."""
    edges: set[Edge] = set()
    for pods in rendering.pods(*ROOMS):
        run, config = settings(rendering, pods)
        for key in ("rollout_target", "learner_target"):
            if getattr(config, key, None) is not None:
                targets, port = behind(rendering, getattr(config, key))
                edges |= {(str(pods), str(target), port) for target in targets}
        if isinstance(config, ScalerConfig):
            edges |= {(str(pods), str(worker), config.rollout_port) for worker in rendering.pods("rollout")}
        host = run.redis_url.get_secret_value().rpartition("@")[2]
        if ".svc." in host or host.split(":")[0] in rendering.names("Service"):
            edges |= {(str(pods), str(redis), REDIS_PORT) for redis in rendering.pods("redis")}
    return edges


def edges_from_outside(rendering: Rendering, pods: Pods) -> set[tuple[str, int]]:
    """(peer, port) of what may come from beyond the release."""
    if pods.component not in ROOMS:
        keda = pods.component == "redis" and rendering.of("ScaledObject")
        return {(KEDA.name, REDIS_PORT)} if keda else set()
    _, config = settings(rendering, pods)
    allowed = {(MONITORING.name, config.metrics_port)}
    if isinstance(config, GatewayConfig):
        ports = [config.listen] if config.http_listen is None else [config.listen, config.http_listen]
        everybody = (*STRANGERS, MONITORING, DNS, KEDA)
        allowed |= {(peer.name, port_of(address)) for peer in everybody for address in ports}
    return allowed


@pytest.mark.parametrize("name", SETS)
def test_every_pod_is_closed_in_both_directions_by_default(name: str) -> None:
    rendering = rendered(name)
    closing = [
        policy["spec"]["podSelector"]
        for policy in rendering.of("NetworkPolicy")
        if sorted(policy["spec"]["policyTypes"]) == ["Egress", "Ingress"]
        and not policy["spec"].get("ingress")
        and not policy["spec"].get("egress")
    ]
    for pods in rendering.pods():
        assert any(matches(selector, pods.labels) for selector in closing), str(pods)


@pytest.mark.parametrize("name", SETS)
def test_pods_of_the_release_reach_each_other_on_the_codes_edges_alone(name: str) -> None:
    rendering = rendered(name)
    network = Network(rendering.of("NetworkPolicy"), NAMESPACE)
    expected = edges_by_the_code(rendering)
    every = rendering.pods()
    ports = {port for pods in every for port in pods.ports.values()} | {SSH}
    allowed = {
        (str(one), str(other), port)
        for one in every
        for other in every
        for port in ports
        if network.allows(Peer.of(one, NAMESPACE), Peer.of(other, NAMESPACE), port)
    }
    # Whoever may call a gateway may do so from inside as well; pods of the release have no way out but theirs.
    assert allowed == expected
    assert {edge for edge in expected if "rollout" in edge[1]}, "somebody calls the workers"


@pytest.mark.parametrize("name", SETS)
def test_from_outside_only_clients_reach_gateways_and_only_monitoring_metrics(name: str) -> None:
    rendering = rendered(name)
    network = Network(rendering.of("NetworkPolicy"), NAMESPACE)
    for pods in rendering.pods():
        ports = {*pods.ports.values(), SSH}
        allowed = {
            (peer.name, port)
            for peer in (*STRANGERS, MONITORING, DNS, KEDA)
            for port in ports
            if network.allows(peer, Peer.of(pods, NAMESPACE), port)
        }
        assert allowed == edges_from_outside(rendering, pods), str(pods)


@pytest.mark.parametrize("name", SETS)
def test_names_are_also_answered_by_a_cache_on_the_node_and_by_the_cloud(name: str) -> None:
    rendering = rendered(name)
    network = Network(rendering.of("NetworkPolicy"), NAMESPACE)
    for address in ("169.254.20.10", "169.254.169.254"):
        resolver = Peer(name="resolver", address=address)
        for pods in rendering.pods():
            peer = Peer.of(pods, NAMESPACE)
            assert network.allows(peer, resolver, 53, "UDP") and network.allows(peer, resolver, 53), str(pods)
            # At the second of them a cloud also hands out its machines' credentials.
            assert not network.allows(peer, resolver, 80), str(pods)


def test_dns_pods_may_listen_elsewhere() -> None:
    rendering = render(changed("minimal", {"networkPolicy": {"dns": {"ports": [53, 5353]}}}))
    network = Network(rendering.of("NetworkPolicy"), NAMESPACE)
    assert all(network.allows(Peer.of(pods, NAMESPACE), DNS, 5353, "UDP") for pods in rendering.pods())


@pytest.mark.parametrize("name", SETS)
def test_to_outside_there_is_dns_and_for_the_scaler_the_api_server(name: str) -> None:
    rendering = rendered(name)
    network = Network(rendering.of("NetworkPolicy"), NAMESPACE)
    for pods in rendering.pods():
        peer = Peer.of(pods, NAMESPACE)
        assert network.allows(peer, DNS, 53, "UDP") and network.allows(peer, DNS, 53)
        assert not network.allows(peer, DNS, SSH)
        ways = {port for port in (80, 443, 6443, 8080, 8443, 16443) if network.allows(peer, API_SERVER, port)}
        assert ways == ({443, 6443, 8443, 16443} if pods.component == "scaler" else set()), str(pods)
        assert not any(network.allows(peer, stranger, SSH) for stranger in STRANGERS)


def test_an_external_redis_is_reached_by_the_rooms_at_its_address_alone() -> None:
    rendering = rendered("external-redis")
    network = Network(rendering.of("NetworkPolicy"), NAMESPACE)
    blocks = [
        (block["ipBlock"]["cidr"], port["port"])
        for policy in rendering.of("NetworkPolicy")
        if policy["metadata"]["name"].endswith("-rooms-to-redis")
        for rule in policy["spec"].get("egress") or []
        for block in rule.get("to") or []
        if "ipBlock" in block
        for port in rule["ports"]
    ]
    assert blocks
    for cidr, port in blocks:
        address = str(cidr).partition("/")[0]
        for pods in rendering.pods():
            reaches = network.allows(Peer.of(pods, NAMESPACE), Peer(name="redis", address=address), port)
            assert reaches == (pods.component in ROOMS), str(pods)


def test_clients_can_be_named() -> None:
    only = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "apps"}}}
    rendering = render(changed("minimal", {"networkPolicy": {"clients": [only]}}))
    network = Network(rendering.of("NetworkPolicy"), NAMESPACE)
    [gateway] = [Peer.of(pods, NAMESPACE) for pods in rendering.pods("gateway")]
    assert network.allows(Peer(name="app", namespace="apps"), gateway, gateway.ports["grpc"])
    assert not any(network.allows(stranger, gateway, gateway.ports["grpc"]) for stranger in STRANGERS)
