"""What the fake refuses as a real API server would: RolloutPools by their CRD, Leases and Events by their fields."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import celpy
import jsonschema  # type: ignore[import-untyped]
import yaml
from celpy.adapter import json_to_cel

from kube.kinds import DEPLOYMENTS, EVENTS, LEASES, POOLS, Resource
from kube.store import Json, Refused

CRD_FILE = Path(__file__).parents[2] / "deploy/helm/onlinerlhf/crds/rolloutpools.yaml"


@cache
def pool_schema() -> Json:
    """The CRD's schema of the one version."""
    crd = yaml.safe_load(CRD_FILE.read_text())
    schema: Json = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def check(resource: Resource, body: Json, old: Json | None, *, strict: bool = False) -> None:
    """Default, prune and validate in place. Raises Refused (422, or 400 for what strictness alone refuses)."""
    if resource == POOLS:
        _check_pool(body, old, strict=strict)
    elif resource == LEASES:
        seconds = body.get("spec", {}).get("leaseDurationSeconds")
        if seconds is not None and seconds <= 0:
            raise _invalid(
                "Lease", body, f"spec.leaseDurationSeconds: Invalid value: {seconds}: must be greater than 0"
            )
    elif resource == EVENTS:
        needed = ("eventTime", "reportingController", "reportingInstance", "action", "reason", "type")
        if missing := [key for key in needed if not body.get(key)]:
            raise _invalid("Event", body, f"{missing[0]}: Required value")
        if len(body.get("note", "")) > 1024:
            raise _invalid("Event", body, "note: Too long: may not be more than 1024 bytes")
    elif resource == DEPLOYMENTS and body.get("spec", {}).get("replicas", 0) < 0:
        raise _invalid("Deployment", body, "spec.replicas: must be greater than or equal to 0")


def _check_pool(body: Json, old: Json | None, *, strict: bool) -> None:
    schema = pool_schema()
    if old is not None and body.get("spec") == old.get("spec"):
        # As since Kubernetes 1.30: what an update does not touch is not held against it.
        body, old, schema = (
            {"metadata": body["metadata"], "status": body.get("status", {})},
            None,
            _without_spec(schema),
        )
    unknown = _prune(body, schema)
    if unknown and strict:
        raise Refused(400, "BadRequest", f'strict decoding error: unknown field "{unknown[0]}"')
    _default(body, schema)
    errors = sorted(
        jsonschema.Draft202012Validator(_plain(schema)).iter_errors(body), key=lambda error: error.json_path
    )
    if errors:
        raise _invalid("RolloutPool", body, f"{errors[0].json_path.removeprefix('$.')}: {errors[0].message}")
    for path, message in _broken_rules(schema, body, old, path=""):
        raise _invalid("RolloutPool", body, f"{path.removeprefix('.')}: Invalid value: {message}")


def _without_spec(schema: Json) -> Json:
    kept = {key: part for key, part in schema["properties"].items() if key != "spec"}
    return {**schema, "required": [], "properties": kept}


def _invalid(kind: str, body: Json, message: str) -> Refused:
    return Refused(422, "Invalid", f'{kind} "{body["metadata"].get("name", "")}" is invalid: {message}')


def _prune(value: Any, schema: Json, path: str = "") -> list[str]:
    """Remove unknown fields, as the API server does; return their paths."""
    if isinstance(value, list):
        return [found for each in value for found in _prune(each, schema.get("items", {}), path)]
    if not isinstance(value, dict) or "properties" not in schema:
        return []
    removed = [f"{path}.{key}".removeprefix(".") for key in value if key not in schema["properties"]]
    for key in list(value):
        if key not in schema["properties"]:
            del value[key]
        else:
            removed += _prune(value[key], schema["properties"][key], f"{path}.{key}")
    return removed


def _default(value: Any, schema: Json) -> None:
    if isinstance(value, dict):
        for key, part in schema.get("properties", {}).items():
            if key not in value and "default" in part:
                value[key] = copy.deepcopy(part["default"])
            if key in value:
                _default(value[key], part)


def _plain(schema: Any) -> Any:
    """Without what JSON Schema does not know: formats of numbers, and Kubernetes' own keys."""
    if isinstance(schema, dict):
        return {
            key: _plain(part)
            for key, part in schema.items()
            if not key.startswith("x-kubernetes") and not (key == "format" and part in ("int32", "int64", "date-time"))
        }
    return [_plain(part) for part in schema] if isinstance(schema, list) else schema


@cache
def _program(rule: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(rule))


def _broken_rules(schema: Json, value: Any, old: Any, *, path: str) -> list[tuple[str, str]]:
    """Paths and messages of x-kubernetes-validations that do not hold; those of `oldSelf` only where there is one."""
    broken = []
    for rule in schema.get("x-kubernetes-validations", []):
        if "oldSelf" in rule["rule"] and old is None:
            continue
        names = {"self": json_to_cel(value)} | ({"oldSelf": json_to_cel(old)} if old is not None else {})
        if not _program(rule["rule"]).evaluate(names):
            broken.append((path + rule.get("fieldPath", ""), rule["message"]))
    if isinstance(value, dict):
        for key, part in schema.get("properties", {}).items():
            if key in value:
                before = old.get(key) if isinstance(old, dict) else None
                broken += _broken_rules(part, value[key], before, path=f"{path}.{key}")
    return broken
