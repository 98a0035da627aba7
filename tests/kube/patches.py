"""Patches: merge (RFC 7386), JSON (RFC 6902: add, replace, remove, test) and, as merges, strategic and apply."""

import copy
from typing import Any

from kube.store import Json, Refused


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, all else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def json_patched(target: Json, operations: list[Json]) -> Json:
    """RFC 6902 without move and copy."""
    result = copy.deepcopy(target)
    for operation in operations:
        *parents, last = [
            part.replace("~1", "/").replace("~0", "~") for part in operation["path"].removeprefix("/").split("/")
        ]
        place: Any = result
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        key: Any = int(last) if isinstance(place, list) and last != "-" else last
        match operation["op"]:
            case "test":
                if place[key] != operation["value"]:
                    raise Refused(422, "Invalid", f"the test of {operation['path']} failed")
            case "remove":
                del place[key]
            case "add" if isinstance(place, list):
                place.insert(len(place) if key == "-" else key, operation["value"])
            case "add" | "replace":
                place[key] = operation["value"]
            case other:
                raise Refused(400, "BadRequest", f"JSON patch operation {other!r} is not served here")
    return result
