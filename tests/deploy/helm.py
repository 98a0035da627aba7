"""The chart, rendered by Helm's own engine, as deploy/render.py does. Renderings are kept for the session."""

import importlib.util
import json
import sys
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import helm_python
import yaml

from deploy.objects import Object, Rendering

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
CHART: Final = DEPLOY / "helm" / "onlinerlhf"
SETS: Final = tuple(sorted(path.stem for path in (DEPLOY / "helm" / "values").glob("*.yaml")))
RELEASE: Final = "onlinerlhf"
NAMESPACE: Final = "rlhf"

Values = Mapping[str, Any]


def values_of(name: str) -> dict[str, Any]:
    """A values set, as its file has it."""
    return yaml.safe_load((DEPLOY / "helm" / "values" / f"{name}.yaml").read_text()) or {}


@cache
def rendered(name: str) -> Rendering:
    """A values set."""
    return render(values_of(name))


def render(values: Values, *, release: str = RELEASE, namespace: str = NAMESPACE) -> Rendering:
    """Everything an installation with these values makes, custom resource definitions included."""
    return _render(json.dumps(values, sort_keys=True), release, namespace)


def changed(name: str, changes: Values) -> dict[str, Any]:
    """A values set with some values replaced, as by further files on the command line."""
    return _merged(values_of(name), changes)


def refusal(values: Values) -> str:
    """What the chart says against these values; fails where it takes them."""
    try:
        render(values)
    except helm_python.HelmError as error:
        return str(error)
    raise AssertionError("the chart took these values")


def lint(values: Values) -> list[str]:
    """What the linter finds, warnings included, but for what it advises."""
    report = helm_python.lint(CHART, dict(values), strict=True, quiet=True, namespace=NAMESPACE)
    return [*report["errors"], *(each["error"] for each in report["messages"] if each["severity"] > 1)]


def _load_renderer() -> ModuleType:
    """deploy/ is no package: its script is run as one."""
    spec = importlib.util.spec_from_file_location("onlinerlhf_render", DEPLOY / "render.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


renderer: Final = _load_renderer()


@cache
def _render(values: str, release: str, namespace: str) -> Rendering:
    objects = renderer.render(json.loads(values), release=release, namespace=namespace)
    return Rendering((*_definitions(), *objects))


@cache
def _definitions() -> tuple[Object, ...]:
    return tuple(each for each in yaml.safe_load_all(renderer.custom_resources()) if each)


def _merged(base: Values, over: Values) -> dict[str, Any]:
    made = dict(deepcopy(base))
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(made.get(key), Mapping)
        made[key] = _merged(made[key], value) if both else value
    return made
