"""Renders deploy/manifests from the Helm chart, for people who use kubectl alone: `make manifests`.

    python deploy/render.py            write them
    python deploy/render.py --check    compare them; exit 1 with a diff where they differ

The engine is Helm's own, from PyPI (helm-python-sdk); nothing here contacts a cluster.
"""

import argparse
import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import helm_python
import yaml

DEPLOY: Final = Path(__file__).resolve().parent
CHART: Final = DEPLOY / "helm" / "onlinerlhf"
VALUES: Final = DEPLOY / "helm" / "values"
MANIFESTS: Final = DEPLOY / "manifests"
RELEASE: Final = "onlinerlhf"
NAMESPACE: Final = "onlinerlhf"
CRDS: Final = "crds"
"""Manifest with the custom resource definitions: those must be established before an object of theirs is applied."""
REDIS_SECRET: Final = f"{RELEASE}-redis-auth"

# What Helm installs first, as far as the chart has it; the rest follows by name.
_ORDER: Final = (
    "Namespace",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "ServiceAccount",
    "Secret",
    "ConfigMap",
    "PersistentVolumeClaim",
    "Role",
    "RoleBinding",
    "Service",
    "StatefulSet",
    "Job",
    "Deployment",
    "HorizontalPodAutoscaler",
)
_NEEDS: Final = {
    "cert-manager.io": "cert-manager",
    "keda.sh": "KEDA",
    "monitoring.coreos.com": "the Prometheus operator",
}
"""API groups whose definitions come with something else."""

_SECRET: Final = f"""\
#   password=$(openssl rand -hex 20)
#   kubectl -n {NAMESPACE} create secret generic {REDIS_SECRET} --from-literal=password="$password" \\
#     --from-literal=auth.conf="requirepass $password" \\
#     --from-literal=url="redis://:$password@{RELEASE}-redis.{NAMESPACE}.svc.cluster.local:6379/0"
"""
"""Redis's password is in no file."""
_OTHER_SECRET: Final = f"""\
#   kubectl -n {NAMESPACE} create secret generic onlinerlhf-redis --from-literal=url='rediss://:PASSWORD@HOST:PORT/0'
"""


_APPLY: Final = (
    '#   sed "s#image: onlinerlhf-\\([a-z]*\\):.*#image: $REGISTRY/onlinerlhf-\\1:$TAG#" '
    "deploy/manifests/{name}.yaml | kubectl apply -f -"
)
"""The images are where the user pushed them."""


def load(path: Path) -> dict[str, Any]:
    """A values file."""
    return helm_python.values_from_yaml(path.read_text(encoding="utf-8"))


def values_sets() -> tuple[str, ...]:
    """Names of the ready-made sets."""
    return tuple(sorted(path.stem for path in VALUES.glob("*.yaml")))


def render(
    values: Mapping[str, Any], *, release: str = RELEASE, namespace: str = NAMESPACE, chart: Path = CHART
) -> list[dict[str, Any]]:
    """The objects that the chart makes of these values, parsed. Raises helm_python.HelmError where it refuses them."""
    return [parsed for parsed, _ in _documents(values, release, namespace, chart)]


def for_kubectl(values: Mapping[str, Any]) -> dict[str, Any]:
    """A set with what plain manifests need: a namespace, and a Secret that exists instead of a random password."""
    redis = dict(values.get("redis") or {})
    auth = dict(redis.get("auth") or {})
    auth["existingSecret"] = auth.get("existingSecret") or REDIS_SECRET
    return {**values, "redis": {**redis, "auth": auth}, "namespace": {"create": True}}


def manifest(name: str) -> str:
    """Text of deploy/manifests/<name>.yaml."""
    documents = _documents(for_kubectl(load(VALUES / f"{name}.yaml")), RELEASE, NAMESPACE, CHART)
    pairs = sorted(documents, key=lambda pair: _rank(pair[0]))
    return _header(name, [parsed for parsed, _ in pairs]) + "".join(f"---\n{text.strip()}\n" for _, text in pairs)


def custom_resources() -> str:
    """Text of deploy/manifests/crds.yaml."""
    with helm_python.Chart.load(CHART) as chart:
        definitions = sorted(chart.crds, key=lambda crd: crd["name"])
    head = f"# Made by `make manifests` from {CHART.relative_to(DEPLOY.parent)}/crds; do not edit.\n"
    return head + "".join(f"---\n{crd['data'].strip()}\n" for crd in definitions)


def manifests() -> dict[str, str]:
    """Every file by its name, as it should be."""
    texts = {f"{name}.yaml": manifest(name) for name in values_sets()}
    return {f"{CRDS}.yaml": custom_resources(), **texts}


def drift(wanted: Mapping[str, str]) -> list[str]:
    """Lines of a diff between what deploy/manifests holds and what it should; empty: none."""
    lines: list[str] = []
    for name in sorted({*wanted, *(path.name for path in MANIFESTS.glob("*.yaml"))}):
        path = MANIFESTS / name
        have = path.read_text(encoding="utf-8") if path.exists() else ""
        lines += difflib.unified_diff(
            have.splitlines(),
            wanted.get(name, "").splitlines(),
            f"deploy/manifests/{name} (as it is)",
            f"deploy/manifests/{name} (from the chart)",
            lineterm="",
        )
    return lines


def write(wanted: Mapping[str, str]) -> None:
    """Make deploy/manifests hold these files and no others."""
    MANIFESTS.mkdir(exist_ok=True)
    for path in MANIFESTS.glob("*.yaml"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (MANIFESTS / name).write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Render deploy/manifests from the Helm chart.")
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 where they differ")
    options = parser.parse_args(arguments)
    wanted = manifests()
    if not options.check:
        write(wanted)
        print(f"{len(wanted)} files in {MANIFESTS.relative_to(DEPLOY.parent)}")
        return 0
    if lines := drift(wanted):
        print("\n".join(lines))
        print("deploy/manifests is not what the chart renders: run `make manifests`", file=sys.stderr)
        return 1
    return 0


def _documents(
    values: Mapping[str, Any], release: str, namespace: str, chart: Path
) -> Iterable[tuple[dict[str, Any], str]]:
    """Each rendered document that has content, parsed and as it is."""
    with helm_python.Chart.load(chart) as loaded:
        rendered = loaded.render(dict(values), name=release, namespace=namespace)
    for template, text in sorted(rendered.items()):
        if not template.endswith("NOTES.txt"):
            for part in f"\n{text}".split("\n---\n"):
                parsed = yaml.load(part, Loader=yaml.CSafeLoader)
                if parsed is not None:
                    yield parsed, part


def _rank(parsed: Mapping[str, Any]) -> tuple[int, str, str]:
    kind = str(parsed["kind"])
    place = _ORDER.index(kind) if kind in _ORDER else len(_ORDER)
    return place, kind, str(parsed["metadata"]["name"])


def _header(name: str, objects: Sequence[Mapping[str, Any]]) -> str:
    """How to apply it."""
    groups = {str(each["apiVersion"]).partition("/")[0] for each in objects}
    lines = [f"# Made by `make manifests` from deploy/helm/values/{name}.yaml; do not edit. To apply it:"]
    needs = [what for group, what in _NEEDS.items() if group in groups]
    if needs:
        lines.append(f"#   (the cluster must have {' and '.join(needs)})")
    if "onlinerlhf.dev" in groups:
        lines.append(f"#   kubectl apply --server-side -f deploy/manifests/{CRDS}.yaml")
        lines.append("#   kubectl wait --for=condition=Established crd/rolloutpools.onlinerlhf.dev --timeout=60s")
    lines.append(f"#   kubectl create namespace {NAMESPACE}")
    secret = _SECRET if any(_is(each, "StatefulSet", f"{RELEASE}-redis") for each in objects) else _OTHER_SECRET
    apply = _APPLY.format(name=name)
    last = "# The Namespace is in here: `kubectl delete -f` of this file deletes all volumes with it."
    return "\n".join(lines) + f"\n{secret}{apply}\n{last}\n"


def _is(parsed: Mapping[str, Any], kind: str, name: str) -> bool:
    return bool(parsed["kind"] == kind and parsed["metadata"]["name"] == name)


if __name__ == "__main__":
    sys.exit(main())
