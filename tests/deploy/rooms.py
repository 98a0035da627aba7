"""A room as its pod starts it: the environment and the file it gets, read by the room's own loader."""

import base64
import os
import re
import tempfile
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Final
from unittest.mock import patch

from deploy.objects import Object, Pods, Rendering
from onlinerlhf.gateway.config import GatewayConfig
from onlinerlhf.learner.config import LearnerConfig
from onlinerlhf.reward.config import RewardConfig
from onlinerlhf.rollout.config import RolloutConfig
from onlinerlhf.runtime import config as configs
from onlinerlhf.runtime.config import RunConfig, ServiceConfig
from onlinerlhf.scaler.config import ScalerConfig

ROOMS: Final[dict[str, type[ServiceConfig]]] = {
    "gateway": GatewayConfig,
    "rollout": RolloutConfig,
    "reward": RewardConfig,
    "learner": LearnerConfig,
    "scaler": ScalerConfig,
}
# What a Secret that the release does not make would hold.
STAND_INS: Final = {"url": "redis://:stand-in@redis.example:6379/0", "hash-key": "0123456789abcdef"}
FIELDS: Final = {
    "metadata.name": "pod-0",
    "metadata.namespace": "rlhf",
    "status.podIP": "10.1.2.3",
    "spec.nodeName": "node-1",
}


def image_of(container: Object) -> str:
    """Room whose image a container runs."""
    found = re.search(r"onlinerlhf-([a-z]+)", container["image"])
    assert found, container["image"]
    return found[1]


def environment(rendering: Rendering, pods: Pods) -> dict[str, str]:
    """Variables of a pod's main container."""
    return {each["name"]: _value(rendering, pods, each) for each in pods.main.get("env", [])}


def settings(rendering: Rendering, pods: Pods) -> tuple[RunConfig, ServiceConfig]:
    """What the room makes of it. Raises ConfigError as it would in the pod."""
    return _settings(rendering, pods.component, str(pods))


@cache
def _settings(rendering: Rendering, room: str, workload: str) -> tuple[RunConfig, ServiceConfig]:
    [pods] = [each for each in rendering.pods(room) if str(each) == workload]
    variables = environment(rendering, pods)
    text = mounted_text(rendering, pods, variables["ONLINERLHF_CONFIG"])
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "config.toml"
        path.write_text(text)
        with patch.dict(os.environ, {**variables, "ONLINERLHF_CONFIG": str(path)}, clear=True):
            return configs.load(room, ROOMS[room])


def mounted_text(rendering: Rendering, pods: Pods, path: str) -> str:
    """A file that a ConfigMap is mounted as."""
    volumes = {volume["name"]: volume for volume in pods.spec["volumes"]}
    for mount in pods.main["volumeMounts"]:
        target = PurePosixPath(mount["mountPath"])
        source = volumes.get(mount["name"], {}).get("configMap")
        if source is None or not PurePosixPath(path).is_relative_to(target):
            continue
        data: dict[str, str] = rendering.one("ConfigMap", source["name"])["data"]
        return data[mount.get("subPath") or str(PurePosixPath(path).relative_to(target))]
    raise AssertionError(f"{pods} mounts no ConfigMap over {path}")


def _whole_cores(pods: Pods, resource: str) -> int:
    bound, _, kind = resource.partition(".")
    given = str(pods.main["resources"][bound][kind])
    return -(-int(given.removesuffix("m")) // 1000) if given.endswith("m") else int(given)


def _value(rendering: Rendering, pods: Pods, variable: dict[str, Any]) -> str:
    if "value" in variable:
        return str(variable["value"])
    [(kind, source)] = variable["valueFrom"].items()
    match kind:
        case "fieldRef":
            return FIELDS[source["fieldPath"]]
        case "secretKeyRef":
            return _secret(rendering, source)
        case "configMapKeyRef":
            return str(rendering.one("ConfigMap", source["name"])["data"][source["key"]])
        case "resourceFieldRef":
            return str(_whole_cores(pods, source["resource"]))
        case unknown:
            raise AssertionError(f"{variable['name']} comes from a {unknown}")


def _secret(rendering: Rendering, source: dict[str, str]) -> str:
    if source["name"] not in rendering.names("Secret"):
        return STAND_INS[source["key"]]
    secret = rendering.one("Secret", source["name"])
    given = secret.get("stringData") or {}
    return given[source["key"]] if source["key"] in given else base64.b64decode(secret["data"][source["key"]]).decode()
