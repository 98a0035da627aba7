"""values.yaml, its schema and the templates agree: what may be set exists, and does something."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from deploy.helm import CHART

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
TEMPLATES = "\n".join(path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file())
# What is copied into objects as it is, and what users name themselves.
COPIED = frozenset(("resources", "initResources", "labels", "annotations", "settings", "names", "global"))


def paths(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Of everything that may be set."""
    for key, value in values.items():
        yield (*path, key)
        if isinstance(value, Mapping) and key not in COPIED:
            yield from paths(value, (*path, key))


def properties(schema: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Of everything that the schema lets pass."""
    if "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    for key, part in schema.get("properties", {}).items():
        yield (*path, key)
        if key not in COPIED:
            yield from properties(part, (*path, key))


def test_every_value_is_read_by_a_template() -> None:
    words = set(re.findall(r"[A-Za-z][A-Za-z0-9]*", TEMPLATES))
    unread = [".".join(path) for path in paths(VALUES) if path[-1] not in words]
    # A pool's name is the user's.
    assert [path for path in unread if path != "rollout.pools.default"] == []


def test_the_schema_lets_nothing_pass_that_has_no_default() -> None:
    known = set(paths(VALUES))
    optional = {
        path
        for path in properties(SCHEMA)
        if path not in known and path[:-1] in known and not {"pools", "global"} & set(path)
    }
    assert optional == set()


def test_every_table_of_the_schema_is_closed() -> None:
    def open_tables(schema: Any, path: str = "") -> Iterator[str]:
        if not isinstance(schema, dict):
            return
        if "properties" in schema and "additionalProperties" not in schema:
            yield path
        for key, part in schema.items():
            yield from open_tables(part, f"{path}/{key}")

    assert list(open_tables(SCHEMA)) == []
