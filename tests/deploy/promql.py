"""Which metrics and labels an expression reads, and which the code exports."""

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

METRICS_MODULES: Final = (
    "onlinerlhf.runtime.metrics",
    "onlinerlhf.gateway.metrics",
    "onlinerlhf.gateway.http.metrics",
    "onlinerlhf.gateway.access.limits",
    "onlinerlhf.gateway.kept.answers",
    "onlinerlhf.gateway.kept.feedback",
    "onlinerlhf.rollout.metrics",
    "onlinerlhf.learner.metrics",
    "onlinerlhf.scaler.metrics",
)
TARGET_LABELS: Final = frozenset(("namespace", "release", "job", "pool", "pod"))
"""What the PodMonitor adds to every series of ours."""
SUFFIXES: Final = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
_WORDS: Final = frozenset(
    (
        "and",
        "or",
        "unless",
        "bool",
        "offset",
        "on",
        "ignoring",
        "by",
        "without",
        "group_left",
        "group_right",
        "inf",
        "nan",
    )
)
_IDENTIFIER: Final = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_STRING: Final = r'"(?:[^"\\]|\\.)*"'
_GROUPING: Final = r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^()]*)\)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reads:
    """What an expression asks Prometheus for."""

    metrics: frozenset[str]
    labels: frozenset[str]
    """Those that are matched or grouped by."""


def reads(expression: str) -> Reads:
    """By its words, not by a grammar: strings, matchers, ranges and groupings are taken out, then no name is left
    but of functions, which a parenthesis follows, and of metrics."""
    text = re.sub(_STRING, '""', expression)
    labels: list[str] = []
    for matchers in re.findall(r"\{([^{}]*)\}", text):
        labels += re.findall(rf"({_IDENTIFIER})\s*(?:=~|!~|!=|=)", matchers)
    text = re.sub(r"\{[^{}]*\}|\[[^\[\]]*\]", " ", text)
    for names in re.findall(_GROUPING, text):
        labels += re.findall(_IDENTIFIER, names)
    text = re.sub(_GROUPING, " ", text)
    # A duration or a number with an exponent is no name.
    text = re.sub(r"\b\d[\w.]*", " ", text)
    words = re.findall(rf"({_IDENTIFIER})\s*(\(?)", text)
    metrics = {word for word, call in words if not call and word.lower() not in _WORDS}
    return Reads(metrics=frozenset(metrics), labels=frozenset(labels))


def exported() -> dict[str, frozenset[str]]:
    """Series that the rooms export, with their own labels."""
    for module in METRICS_MODULES:
        importlib.import_module(module)
    return {name: labels for name, labels in _series() if name.startswith("onlinerlhf_")}


def _series() -> Iterator[tuple[str, frozenset[str]]]:
    for collector in set(REGISTRY._names_to_collectors.values()):
        if not isinstance(collector, MetricWrapperBase):
            continue
        for family in collector.describe():
            for suffix in SUFFIXES.get(family.type, ()):
                own = frozenset(collector._labelnames)
                yield family.name + suffix, own | {"le"} if suffix == "_bucket" else own
