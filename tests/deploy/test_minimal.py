"""The minimal set is small enough for the one node it promises to fit, and can be applied as its header says."""

import os
import re
import subprocess

import yaml

from deploy.helm import DEPLOY, ROOT, rendered
from deploy.objects import Object, Pods

CPUS, GIB = 4.0, 12.0
OTHERS_CPUS, OTHERS_GIB = 1.0, 1.0
"""What a small cluster's own pods ask for."""
UNITS = {"": 1.0, "m": 1e-3, "Mi": 2.0**20, "Gi": 2.0**30}


def quantity(text: str) -> float:
    """In cores or bytes."""
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]


def asked(pods: Pods, resource: str) -> float:
    """What the scheduler keeps free for one of the pods: all containers, or the hungriest that runs before them."""

    def of(containers: list[Object]) -> list[float]:
        return [quantity(each["resources"]["requests"][resource]) for each in containers]

    return max([sum(of(pods.spec["containers"])), *of(pods.spec.get("initContainers", []))])


def num_pods(pods: Pods) -> int:
    """At most, once all is up: the Job has ended."""
    if pods.owner["kind"] == "Job":
        return 0
    pools = {each["spec"]["deploymentName"]: each["spec"] for each in rendered("minimal").of("RolloutPool")}
    pool = pools.get(pods.owner["metadata"]["name"])
    return int(pool["maxReplicas"] if pool else pods.owner["spec"]["replicas"])


def test_the_largest_the_minimal_set_grows_to_fits_one_small_node() -> None:
    every = rendered("minimal").pods()
    assert sum(num_pods(pods) * asked(pods, "cpu") for pods in every) <= CPUS - OTHERS_CPUS
    assert sum(num_pods(pods) * asked(pods, "memory") for pods in every) <= (GIB - OTHERS_GIB) * 2**30


def test_the_headers_command_takes_the_images_from_where_they_were_pushed() -> None:
    for path in sorted((DEPLOY / "manifests").glob("*.yaml")):
        if path.stem == "crds":
            continue
        [line] = [line for line in path.read_text().splitlines() if line.startswith("#   sed ")]
        command = line.removeprefix("#").strip().partition(" | kubectl apply -f -")[0]
        environment = {**os.environ, "REGISTRY": "registry.example:5000/rlhf", "TAG": "9.9"}
        ran = subprocess.run(
            ["sh", "-c", command], cwd=DEPLOY.parent, env=environment, capture_output=True, text=True, check=True
        )
        images = set(re.findall(r"^ *(?:- )?image: (.*)$", ran.stdout, flags=re.MULTILINE))
        ours = {image for image in images if "onlinerlhf" in image}
        assert ours and all(re.fullmatch(r"registry\.example:5000/rlhf/onlinerlhf-[a-z]+:9\.9", each) for each in ours)
        assert len(list(yaml.safe_load_all(ran.stdout))) == len(list(yaml.safe_load_all(path.read_text())))


def test_paths_in_pods_that_operators_are_told_are_those_of_the_chart() -> None:
    told = set(re.findall(r"/etc/redis[-a-z/.]*", (ROOT / "docs" / "operations.md").read_text()))
    [redis] = rendered("minimal").pods("redis")
    mounts = [each["mountPath"] for each in redis.spec["containers"][0]["volumeMounts"]]
    assert told and all(path.rpartition("/")[0] in mounts for path in told), told
