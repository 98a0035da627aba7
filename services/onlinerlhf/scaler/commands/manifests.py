"""A rendered manifest: read, checked, moved to a namespace and to the operator's images, put in order. No cluster."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.scaler.commands.cluster import Object
from onlinerlhf.scaler.commands.kinds import APP, NAME_LABEL

WORKLOADS: Final = ("Deployment", "StatefulSet", "Job")
REDIS_URL_VARIABLE: Final = "ONLINERLHF_RUN__REDIS_URL"
CRDS: Final = "crds"
"""Kinds come in a file of their own, which all values sets share."""
_ORDER: Final = (
    "Namespace",
    "CustomResourceDefinition",
    "PriorityClass",
    "ServiceAccount",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "Secret",
    "ConfigMap",
    "Issuer",
    "Certificate",
    "NetworkPolicy",
    "PersistentVolumeClaim",
    "Service",
    "PodDisruptionBudget",
    "StatefulSet",
    "Job",
    "Deployment",
    "HorizontalPodAutoscaler",
    "RolloutPool",
)
"""What others need comes first; unknown kinds come last."""
_IMAGE: Final = re.compile(r"^(?:.*/)?(onlinerlhf-[a-z]+)(?::[^/@]+)?(?:@.+)?$")
RESTRICTED: Final = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}


def find_manifests(values_set: str) -> tuple[Path, ...]:
    """The CRDs and a rendered values set: below the working directory, in the checkout or the wheel of this code."""
    here = Path(__file__).resolve()
    folders = [root / "deploy" / "manifests" for root in (Path.cwd(), here.parents[4])]
    folders.append(here.parents[1] / "manifests")
    for folder in folders:
        if (path := folder / f"{values_set}.yaml").is_file():
            return tuple(each for each in (folder / f"{CRDS}.yaml", path) if each.is_file())
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")} - {CRDS})
    there = f"there are: {', '.join(known)}" if known else "this installation brings none: name a file with --manifest"
    raise ConfigError(f"no values set {values_set!r}; {there}")


def read_manifest(path: Path) -> list[Object]:
    """The objects of a file. Raises ConfigError for what is no manifest."""
    try:
        found = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError(f"{path} is not YAML; templates need rendering first (`helm template`)") from None
    objects = [each for document in found if document for each in _unlisted(document)]
    for at, thing in enumerate(objects):
        is_object = isinstance(thing, dict) and isinstance(thing.get("metadata"), dict)
        if not is_object or not all((thing.get("apiVersion"), thing.get("kind"), thing["metadata"].get("name"))):
            raise ConfigError(f"{path}: document {at + 1} has no apiVersion, kind or metadata.name")
    if not objects:
        raise ConfigError(f"{path} holds no objects")
    return objects


def _unlisted(document: Any) -> list[Any]:
    if isinstance(document, dict) and document.get("kind") == "List":
        return list(document.get("items") or [])
    return [document]


def in_order(objects: Iterable[Object]) -> list[Object]:
    """As they can be applied; those of one kind stay as they were."""
    return sorted(objects, key=lambda each: _ORDER.index(each["kind"]) if each["kind"] in _ORDER else len(_ORDER))


def moved(objects: Sequence[Object], namespace: str) -> list[Object]:
    """The same objects in another namespace: where they live, whom roles are bound to, and names of Services."""
    old = {each["metadata"].get("namespace") for each in objects} - {None}
    if len(old) > 1:
        raise ConfigError(f"the manifest spans several namespaces ({', '.join(sorted(old))}): apply it with kubectl")
    before = next(iter(old), namespace)

    def rename(value: Any) -> Any:
        if isinstance(value, str) and before != namespace:
            value = re.sub(rf"\.{re.escape(before)}\.svc\b", f".{namespace}.svc", value)
            return value.replace(f'namespace="{before}"', f'namespace="{namespace}"')
        if isinstance(value, list):
            return [rename(each) for each in value]
        if isinstance(value, dict):
            return {
                key: namespace if key == "namespace" and each == before else rename(each) for key, each in value.items()
            }
        return value

    changed = [rename(each) for each in objects]
    for thing in changed:
        if thing["kind"] == "Namespace" and thing["metadata"]["name"] == before:
            thing["metadata"]["name"] = namespace
    return changed


def with_images(objects: Iterable[Object], *, registry: str | None, tag: str | None) -> list[Object]:
    """The platform's images from another registry or with another tag; others' images stay."""

    def image(old: str) -> str:
        match = _IMAGE.match(old)
        if match is None:
            return old
        repository = f"{registry.rstrip('/')}/{match[1]}" if registry else re.split(r"[@]|:(?=[^/]*$)", old)[0]
        if tag is None:
            return repository + old[len(re.split(r"[@]|:(?=[^/]*$)", old)[0]) :]
        return f"{repository}:{tag}"

    return [_mapped(each, image) for each in objects]


def _mapped(value: Any, image: Callable[[str], str]) -> Any:
    if isinstance(value, list):
        return [_mapped(each, image) for each in value]
    if isinstance(value, dict):
        return {
            key: image(each) if key == "image" and isinstance(each, str) else _mapped(each, image)
            for key, each in value.items()
        }
    return value


def namespace_object(name: str) -> Object:
    """A namespace that admits only pods of the `restricted` standard."""
    labels = {NAME_LABEL: APP, **RESTRICTED}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def redis_secret(objects: Sequence[Object]) -> tuple[str, str] | None:
    """Name and key of the Secret that the pods read the Redis URL from; None: they read none."""
    for container in _containers(objects):
        for variable in container.get("env") or []:
            if variable.get("name") == REDIS_URL_VARIABLE:
                source = (variable.get("valueFrom") or {}).get("secretKeyRef") or {}
                if source:
                    return source["name"], source["key"]
    return None


def own_redis(objects: Sequence[Object]) -> Object | None:
    """The Service of the Redis that the manifest brings; None: it is somebody else's."""
    for thing in objects:
        labels = thing["metadata"].get("labels") or {}
        if thing["kind"] == "Service" and labels.get("app.kubernetes.io/component") == "redis":
            return thing
    return None


def _containers(objects: Iterable[Object]) -> Iterator[Object]:
    for thing in objects:
        if thing["kind"] in WORKLOADS:
            pod = thing["spec"]["template"]["spec"]
            yield from [*(pod.get("initContainers") or []), *pod["containers"]]
