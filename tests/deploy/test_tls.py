"""With TLS on: every server has a certificate for the names it is called by, and probes stay plaintext."""

from pathlib import PurePosixPath
from typing import Any

import pytest

from deploy.helm import changed, render, rendered
from deploy.objects import Object, Pods, Rendering
from deploy.rooms import ROOMS, settings
from onlinerlhf.gateway.config import GatewayConfig
from onlinerlhf.runtime.config import ServiceConfig

BY_SECRET = changed(
    "minimal", {"tls": {"mode": "secret", "secret": {"name": "all-rooms", "names": {"learner": "learners-own"}}}}
)
BOTH = [pytest.param(rendered("tls"), id="cert-manager"), pytest.param(render(BY_SECRET), id="secret")]
FILES = {"tls_cert": "tls.crt", "tls_key": "tls.key", "tls_ca": "ca.crt"}


def rooms(rendering: Rendering) -> list[tuple[Pods, ServiceConfig]]:
    return [(pods, settings(rendering, pods)[1]) for pods in rendering.pods(*ROOMS)]


def secret_at(pods: Pods, path: PurePosixPath) -> str:
    """Secret that is mounted as a directory around a path: only so do renewals reach the pod."""
    volumes = {volume["name"]: volume for volume in pods.spec["volumes"]}
    [mount] = [each for each in pods.main["volumeMounts"] if PurePosixPath(each["mountPath"]) == path.parent]
    assert "subPath" not in mount and mount["readOnly"] is True
    name: str = volumes[mount["name"]]["secret"]["secretName"]
    return name


def certificate_of(rendering: Rendering, component: str) -> Object:
    """The certificate that a room's pods serve with."""
    [pods] = {each.component: each for each in rendering.pods(component)}.values()
    _, config = settings(rendering, pods)
    secret = secret_at(pods, PurePosixPath(str(config.tls_cert)))
    [found] = [each for each in rendering.of("Certificate") if each["spec"]["secretName"] == secret]
    return found


@pytest.mark.parametrize("rendering", BOTH)
def test_every_room_has_its_three_files_from_one_secret(rendering: Rendering) -> None:
    for pods, config in rooms(rendering):
        paths = {key: PurePosixPath(str(getattr(config, key))) for key in FILES}
        assert {key: path.name for key, path in paths.items()} == FILES
        assert len({secret_at(pods, path) for path in paths.values()}) == 1


@pytest.mark.parametrize("rendering", BOTH)
def test_rooms_want_certificates_of_each_other_and_the_gateway_of_nobody(rendering: Rendering) -> None:
    for pods, config in rooms(rendering):
        assert config.needs_client_certificates == (not isinstance(config, GatewayConfig)), str(pods)


@pytest.mark.parametrize("rendering", BOTH)
def test_probes_ask_the_plaintext_port_and_nobody_else_can(rendering: Rendering) -> None:
    for pods, config in rooms(rendering):
        health = int(str(config.health_listen).rpartition(":")[2])
        served = {int(config.listen.rpartition(":")[2]), config.metrics_port}
        assert health not in served
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert pods.main[probe]["grpc"]["port"] == health
        exposed = {port["targetPort"] for service in rendering.of("Service") for port in service["spec"]["ports"]}
        assert not exposed & {"health", health}


def test_secrets_are_chosen_by_room() -> None:
    found = {
        pods.component: secret_at(pods, PurePosixPath(str(config.tls_cert)))
        for pods, config in rooms(render(BY_SECRET))
    }
    assert found.pop("learner") == "learners-own"
    assert set(found.values()) == {"all-rooms"}
    assert not render(BY_SECRET).of("Certificate")


def test_a_servers_certificate_has_the_name_that_it_is_called_by() -> None:
    rendering = rendered("tls")
    called = {"rollout_target": "rollout", "learner_target": "learner"}
    seen = set()
    for _, config in rooms(rendering):
        for key, component in called.items():
            if (target := getattr(config, key, None)) is not None:
                host = target.removeprefix("dns:///").rpartition(":")[0]
                assert host in certificate_of(rendering, component)["spec"]["dnsNames"]
                seen.add(key)
    assert seen == set(called)


def test_the_scaler_calls_workers_by_address_and_expects_a_name_that_they_have() -> None:
    rendering = rendered("tls")
    [config] = [config for pods, config in rooms(rendering) if pods.component == "scaler"]
    expected = getattr(config, "rollout_server_name", None)
    assert expected is not None
    assert expected in certificate_of(rendering, "rollout")["spec"]["dnsNames"]


def test_certificates_serve_and_call_and_come_from_an_issuer_of_the_release() -> None:
    rendering = rendered("tls")
    issuers = set(rendering.names("Issuer"))
    rooms_certificates: list[dict[str, Any]] = [
        each["spec"] for each in rendering.of("Certificate") if not each["spec"].get("isCA")
    ]
    assert len(rooms_certificates) == len({pods.component for pods in rendering.pods(*ROOMS)})
    for spec in rooms_certificates:
        assert {"server auth", "client auth"} <= set(spec["usages"])
        assert spec["issuerRef"]["name"] in issuers
        assert spec["privateKey"]["rotationPolicy"] == "Always"
    assert any("gateway" in name for name in certificate_of(rendering, "gateway")["spec"]["dnsNames"])


def test_without_tls_nothing_of_it_is_there() -> None:
    rendering = rendered("minimal")
    assert not rendering.of("Certificate")
    for pods, config in rooms(rendering):
        assert config.tls_cert is None
        assert "tls" not in {volume["name"] for volume in pods.spec["volumes"]}
