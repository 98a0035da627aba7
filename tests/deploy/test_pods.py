"""What every pod must be: restricted, bounded, probed, and given the time that its end takes."""

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import pytest

from deploy.dockerfile import last, lineage, stages
from deploy.helm import SETS, rendered
from deploy.objects import Object, Pods
from deploy.restricted import violations
from deploy.rooms import ROOMS, environment, image_of, settings
from onlinerlhf.gateway.config import GatewayConfig
from onlinerlhf.learner.config import LearnerConfig
from onlinerlhf.rollout.config import RolloutConfig
from onlinerlhf.runtime.health_service import LIVENESS, USERS

ALL = [pytest.param(pods, id=f"{name}-{pods}") for name in SETS for pods in rendered(name).pods()]
OF_ROOMS = [pytest.param(name, pods, id=f"{name}-{pods}") for name in SETS for pods in rendered(name).pods(*ROOMS)]
WRITABLE = ("emptyDir", "persistentVolumeClaim", "ephemeral")
CACHES = (
    "HOME",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "HF_HOME",
    "TRITON_CACHE_DIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "VLLM_CACHE_ROOT",
)
# The one that may: it calls the API server.
WITH_TOKEN = "scaler"


def mounts(pods: Pods, container: Object) -> dict[PurePosixPath, bool]:
    """Where volumes are mounted, and whether they can be written."""
    claims = {each["metadata"]["name"] for each in pods.owner["spec"].get("volumeClaimTemplates", [])}
    writable = {
        volume["name"] for volume in pods.spec.get("volumes", []) if any(kind in volume for kind in WRITABLE)
    } | claims
    return {
        PurePosixPath(mount["mountPath"]): mount["name"] in writable and not mount.get("readOnly", False)
        for mount in container.get("volumeMounts", [])
    }


def can_write(pods: Pods, container: Object, path: str) -> bool:
    """The innermost mount over a path decides."""
    found = [mount for mount in mounts(pods, container) if PurePosixPath(path).is_relative_to(mount)]
    return bool(found) and mounts(pods, container)[max(found, key=lambda mount: len(mount.parts))]


def probes(container: Object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        if name in container:
            yield name, container[name]


def seconds(probe: Mapping[str, Any]) -> int:
    """How long a startup probe waits."""
    return int(probe.get("initialDelaySeconds", 0) + probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3))


@pytest.mark.parametrize("pods", ALL)
def test_pod_security_restricted_admits_the_pod(pods: Pods) -> None:
    assert violations(pods.spec) == []


@pytest.mark.parametrize("pods", ALL)
def test_root_is_read_only_and_what_the_image_calls_home_is_not(pods: Pods) -> None:
    for container in pods.containers:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, container["name"]
    if pods.component in ROOMS:
        assert can_write(pods, pods.main, "/tmp")


@pytest.mark.parametrize("pods", ALL)
def test_every_container_asks_for_cpu_and_memory_and_is_held_to_limits(pods: Pods) -> None:
    for container in pods.containers:
        for bound in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][bound]), container["name"]


@pytest.mark.parametrize("pods", ALL)
def test_pods_get_neither_links_to_services_nor_a_token_but_the_scalers(pods: Pods) -> None:
    assert pods.spec["enableServiceLinks"] is False
    assert pods.spec["automountServiceAccountToken"] is (pods.component == WITH_TOKEN)


@pytest.mark.parametrize("pods", ALL)
def test_pods_run_as_the_images_user_and_share_its_group(pods: Pods) -> None:
    context = pods.spec["securityContext"]
    if pods.component in (*ROOMS, "models"):
        assert last("USER", lineage(image_of(pods.main), stages())) == "10001:10001"
        assert (context["runAsUser"], context["runAsGroup"]) == (10001, 10001)
        if any("persistentVolumeClaim" in volume for volume in pods.spec.get("volumes", [])):
            assert context["fsGroup"] == 10001


@pytest.mark.parametrize("pods", ALL)
def test_images_are_pinned(pods: Pods) -> None:
    for container in pods.containers:
        tag = container["image"].rpartition("/")[2].partition(":")[2]
        assert tag and tag != "latest", container["image"]


@pytest.mark.parametrize("pods", ALL)
def test_no_password_stands_in_arguments_or_literal_variables(pods: Pods) -> None:
    for container in pods.containers:
        words = [*container.get("command", []), *container.get("args", [])]
        literal = {each["name"]: each["value"] for each in container.get("env", []) if "value" in each}
        assert not any(re.search(r"(?i)password|secret|(^|_)token$|redis_url|hash_key", name) for name in literal), (
            literal
        )
        assert not any(re.search(r"rediss?://[^/]*:[^/]*@", word) for word in [*words, *literal.values()])


@pytest.mark.parametrize("pods", ALL)
def test_probes_ask_ports_that_the_container_has(pods: Pods) -> None:
    for container in pods.spec["containers"]:
        numbers = {port["containerPort"] for port in container.get("ports", [])}
        for name, probe in probes(container):
            if "grpc" in probe:
                assert probe["grpc"]["port"] in numbers, name
            for kind in ("httpGet", "tcpSocket"):
                if kind in probe:
                    port = probe[kind]["port"]
                    assert port in numbers or port in pods.ports, name


@pytest.mark.parametrize(("name", "pods"), OF_ROOMS)
def test_a_rooms_probes_ask_services_that_its_plaintext_health_port_knows(name: str, pods: Pods) -> None:
    _, config = settings(rendered(name), pods)
    port = int(str(config.health_listen).rpartition(":")[2])
    found = dict(probes(pods.main))
    assert set(found) == {"startupProbe", "readinessProbe", "livenessProbe"}
    assert {probe["grpc"]["port"] for probe in found.values()} == {port}
    ready = USERS if pods.component in ("gateway", "rollout") else ""
    assert found["livenessProbe"]["grpc"]["service"] == LIVENESS
    assert found["readinessProbe"]["grpc"].get("service", "") == ready
    assert found["startupProbe"]["grpc"].get("service", "") in (LIVENESS, USERS)
    # The kubelet's own default of one second is too short for a busy node.
    assert all(probe.get("timeoutSeconds", 1) >= 2 for probe in found.values())


@pytest.mark.parametrize(("name", "pods"), OF_ROOMS)
def test_a_room_has_time_to_drain_before_it_is_killed(name: str, pods: Pods) -> None:
    _, config = settings(rendered(name), pods)
    hook = pods.main.get("lifecycle", {}).get("preStop", {})
    before = hook.get("sleep", {}).get("seconds", 0)
    if "exec" in hook:
        before = max(int(each) for each in re.findall(r"\d+", " ".join(hook["exec"]["command"])))
    assert pods.spec["terminationGracePeriodSeconds"] > before + config.drain_seconds


@pytest.mark.parametrize(("name", "pods"), OF_ROOMS)
def test_a_worker_has_time_to_start(name: str, pods: Pods) -> None:
    _, config = settings(rendered(name), pods)
    startup = pods.main["startupProbe"]
    if isinstance(config, RolloutConfig):
        # Ready for users means a first version, which takes the engine's start and then an update.
        update = config.fetch_timeout_seconds + config.apply_timeout_seconds
        assert seconds(startup) > config.start_timeout_seconds + update
        assert startup["grpc"]["service"] == USERS
    else:
        assert seconds(startup) >= 60


@pytest.mark.parametrize(("name", "pods"), OF_ROOMS)
def test_what_a_room_writes_lies_on_a_volume_and_what_it_reads_is_mounted(name: str, pods: Pods) -> None:
    _, config = settings(rendered(name), pods)
    for path in [str(getattr(config, key)) for key in ("staging_dir", "output_dir") if hasattr(config, key)]:
        assert can_write(pods, pods.main, path), path
    home = {"HOME": "/tmp", **environment(rendered(name), pods)}
    for variable in CACHES:
        assert variable not in home or can_write(pods, pods.main, home[variable]), variable
    for path in [
        str(getattr(config, key)) for key in ("model_dir", "policy_dir", "reward_dir") if hasattr(config, key)
    ]:
        assert any(PurePosixPath(path).is_relative_to(mount) for mount in mounts(pods, pods.main)), path
        assert not can_write(pods, pods.main, path), path


@pytest.mark.parametrize(("name", "pods"), OF_ROOMS)
def test_engines_have_shared_memory_that_their_limit_covers(name: str, pods: Pods) -> None:
    _, config = settings(rendered(name), pods)
    if isinstance(config, RolloutConfig | LearnerConfig):
        [mount] = [each for each in pods.main["volumeMounts"] if each["mountPath"] == "/dev/shm"]
        [volume] = [each for each in pods.spec["volumes"] if each["name"] == mount["name"]]
        assert volume["emptyDir"]["medium"] == "Memory"
        assert bytes_of(volume["emptyDir"]["sizeLimit"]) < bytes_of(pods.main["resources"]["limits"]["memory"])


@pytest.mark.parametrize(("name", "pods"), OF_ROOMS)
def test_a_room_listens_where_its_pods_ports_say(name: str, pods: Pods) -> None:
    _, config = settings(rendered(name), pods)
    listens = [config.listen, config.health_listen, f":{config.metrics_port}"]
    if isinstance(config, GatewayConfig):
        listens.append(config.http_listen)
    wanted = {int(str(each).rpartition(":")[2]) for each in listens if each is not None}
    assert set(pods.ports.values()) == wanted
    assert pods.ports["metrics"] == config.metrics_port


def bytes_of(quantity: str) -> int:
    """A quantity of memory."""
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "": 1}
    number, unit = re.fullmatch(r"(\d+)([A-Za-z]*)", str(quantity)).groups()  # type: ignore[union-attr]
    return int(number) * units[unit]
