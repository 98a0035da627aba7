"""`onlinerlhf k8s install`: apply a rendered manifest in an order that works, wait, and say what is missing."""

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from onlinerlhf.core.errors import AlreadyExists, InvalidInput, NotFound, StartupError, WaitTimeout
from onlinerlhf.scaler.commands import manifests
from onlinerlhf.scaler.commands.cluster import Cluster, Object, Place, connected
from onlinerlhf.scaler.commands.kinds import APP, COMPONENT_LABEL, CRD, JOB, NAME_LABEL, NAMESPACE, SECRET, Kinds
from onlinerlhf.scaler.commands.rollout import missing, workloads_of
from onlinerlhf.scaler.commands.waiting import Patience
from onlinerlhf.scaler.kinds import Kind
from onlinerlhf.scaler.kube_errors import Conflict

CRD_SECONDS: Final = 60.0
PASSWORD_BYTES: Final = 32
_IMMUTABLE: Final = ("field is immutable", "spec.template: Invalid value")
"""How the API server says that a Job cannot be changed. The whole pod template stands between the two, so that the end
may be cut off."""
_BOOKKEEPING: Final = frozenset({"managedFields", "resourceVersion", "generation"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What to install, and how."""

    manifests: tuple[Path, ...]
    registry: str | None = None
    tag: str | None = None
    is_dry_run: bool = False
    force_conflicts: bool = False
    wait_seconds: float | None = 900.0
    """None: do not wait."""


async def install(place: Place, wishes: Installation) -> None:
    """Apply and wait. Raises what stands in the way; WaitTimeout when not all came up."""
    found = [each for path in wishes.manifests for each in manifests.read_manifest(path)]
    objects = manifests.moved(found, place.namespace)
    objects = manifests.with_images(objects, registry=wishes.registry, tag=wishes.tag)
    async with connected(place) as cluster:
        rehearsal = " (dry run: nothing is changed)" if wishes.is_dry_run else ""
        files = ", ".join(path.name for path in wishes.manifests)
        click.echo(f"{files} to namespace {cluster.namespace} at {cluster.host}{rehearsal}")
        await _Installer(cluster, wishes).apply_all(objects)
        if wishes.is_dry_run or wishes.wait_seconds is None:
            return
        await wait_until_up(cluster, objects, Patience(seconds=wishes.wait_seconds))


async def wait_until_up(cluster: Cluster, objects: Sequence[Object], patience: Patience) -> None:
    """Until all workloads of the manifest are ready; else a line for each pod that is not, with its reason."""
    wanted = [each for each in objects if each["kind"] in manifests.WORKLOADS]

    async def look() -> str:
        workloads = await workloads_of(cluster, wanted)
        for each in workloads:
            if each.problem and each.kind == "Job":
                raise StartupError(f"{each.label} failed: {each.problem}; `onlinerlhf k8s logs` shows why")
        return ", ".join(f"{each.label} {each.state}" for each in workloads if not each.is_done)

    click.echo(f"waiting for {len(wanted)} workloads, up to {patience.seconds:g} s")
    try:
        seconds = await patience.until(look, what="the installation")
    except (WaitTimeout, StartupError):
        for line in await missing(cluster, wanted):
            click.echo(f"  {line}")
        raise
    click.echo(f"everything is ready after {seconds:.0f} s; `onlinerlhf k8s status -n {cluster.namespace}` shows it")


class _Installer:
    """One run over a manifest's objects."""

    def __init__(self, cluster: Cluster, wishes: Installation) -> None:
        self._cluster = cluster
        self._wishes = wishes
        self._kinds = Kinds(cluster)
        self._has_namespace = False

    async def apply_all(self, objects: Sequence[Object]) -> None:
        """Kinds first and waited for, then the namespace and the Secret, then the rest."""
        crds = [each for each in objects if each["kind"] == CRD.kind]
        rest = [each for each in manifests.in_order(objects) if each["kind"] not in (CRD.kind, NAMESPACE.kind)]
        for thing in crds:
            await self._apply(CRD, thing)
        if crds and not self._wishes.is_dry_run:
            await self._wait_for_kinds(crds)
            self._kinds.forget()
        await self._check_kinds(rest, {each["spec"]["names"]["kind"] for each in crds})
        await self._ensure_namespace(objects)
        await self._ensure_secret(objects)
        for thing in rest:
            await self._apply_when_known(thing)

    async def _check_kinds(self, objects: Sequence[Object], coming: set[str]) -> None:
        """Before anything is changed in the namespace: does the cluster know all of them?"""
        for thing in objects:
            if not (self._wishes.is_dry_run and thing["kind"] in coming):
                await self._kinds.of(thing)

    async def _wait_for_kinds(self, crds: Sequence[Object]) -> None:
        names = [each["metadata"]["name"] for each in crds]

        async def look() -> str:
            pending = []
            for name in names:
                found = await self._cluster.get(CRD, name)
                states = {each["type"]: each for each in (found.get("status") or {}).get("conditions") or []}
                refused = states.get("NamesAccepted", {})
                if refused.get("status") == "False":
                    raise StartupError(
                        f"the cluster does not accept {name}: {refused.get('message', 'names conflict')}"
                    )
                if states.get("Established", {}).get("status") != "True":
                    pending.append(f"{name} is not established yet")
            return ", ".join(pending)

        await Patience(seconds=CRD_SECONDS, poll_seconds=0.5).until(look, what="custom resource definitions")

    async def _ensure_namespace(self, objects: Sequence[Object]) -> None:
        """One that is there stays as it is, unless the manifest says what it should be."""
        name = self._cluster.namespace
        stated = [each for each in objects if _is(each, NAMESPACE.kind, name)]
        there = await self._cluster.find(NAMESPACE, name)
        self._has_namespace = there is not None
        if there is not None and (there["metadata"].get("labels") or {}).get(NAME_LABEL) != APP:
            # Somebody's, who may have other pods in it.
            click.echo(f"  namespace/{name} kept as it is")
        elif stated or there is None:
            await self._apply(NAMESPACE, stated[0] if stated else manifests.namespace_object(name))
        if not self._wishes.is_dry_run:
            self._has_namespace = True

    async def _ensure_secret(self, objects: Sequence[Object]) -> None:
        """The password of our own Redis is made here, once, and shown nowhere."""
        reference = manifests.redis_secret(objects)
        if reference is None or any(_is(each, SECRET.kind, reference[0]) for each in objects):
            return
        name, _ = reference
        if self._has_namespace and await self._cluster.find(SECRET, name) is not None:
            click.echo(f"  secret/{name} kept")
            return
        service = manifests.own_redis(objects)
        if service is None:
            create = f"kubectl -n {self._cluster.namespace} create secret generic {name} --from-literal={reference[1]}=redis://…"
            raise NotFound(f"the Redis is not part of this manifest, and its Secret {name} is missing: {create}")
        if not self._wishes.is_dry_run:
            secret = new_redis_secret(name, url_key=reference[1], host=service["metadata"]["name"])
            try:
                await self._cluster.create(SECRET, secret)
            except AlreadyExists:
                click.echo(f"  secret/{name} kept")
                return
        made = "would be created" if self._wishes.is_dry_run else "created"
        click.echo(f"  secret/{name} {made} with a random password")

    async def _apply_when_known(self, thing: Object) -> None:
        label = f"{thing['kind'].lower()}/{thing['metadata']['name']}"
        try:
            kind = await self._kinds.of(thing)
        except NotFound:
            click.echo(f"  {label} not checked: its kind comes with this installation")
            return
        if kind.namespaced and not self._has_namespace:
            click.echo(f"  {label} not checked: its namespace comes with this installation")
            return
        await self._apply(kind, thing)

    async def _apply(self, kind: Kind, thing: Object) -> None:
        name = thing["metadata"]["name"]
        label = f"{kind.kind.lower()}/{name}"
        before = await self._cluster.find(kind, name)
        force, dry_run = self._wishes.force_conflicts, self._wishes.is_dry_run
        try:
            after = await self._cluster.declare(kind, thing, dry_run=dry_run, force=force)
        except Conflict as error:
            raise InvalidInput(f"{label}: {error}; --force-conflicts takes the fields over") from None
        except InvalidInput as error:
            is_job = before is not None and kind.kind == JOB.kind
            if not is_job or not any(words in str(error) for words in _IMMUTABLE):
                raise InvalidInput(f"{label}: {error}", reason=error.reason) from None
            if not dry_run:
                await self._replace_job(kind, name)
                await self._cluster.declare(kind, thing, force=force)
            click.echo(f"  {label} {'would be ' if dry_run else ''}replaced")
            return
        click.echo(f"  {label} {_change(before, after, is_dry_run=dry_run)}")

    async def _replace_job(self, kind: Kind, name: str) -> None:
        """A Job's template cannot change: the old Job goes first, with its pods."""
        await self._cluster.remove(kind, name)

        async def look() -> str:
            return f"the old job/{name} to be gone" if await self._cluster.find(kind, name) is not None else ""

        await Patience(seconds=CRD_SECONDS, poll_seconds=0.5).until(look, what=f"job/{name}")


def new_redis_secret(name: str, *, url_key: str, host: str) -> Object:
    """A random password: in the pods' URL, as the server's setting, and alone. In hexadecimal it needs no quoting."""
    password = secrets.token_hex(PASSWORD_BYTES)
    values = {
        url_key: f"redis://:{password}@{host}:6379/0",
        "auth.conf": f"requirepass {password}\n",
        "password": password,
    }
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    labels = {NAME_LABEL: APP, COMPONENT_LABEL: "redis"}
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}


def _is(thing: Object, kind: str, name: str) -> bool:
    return bool(thing["kind"] == kind and thing["metadata"]["name"] == name)


def _change(before: Object | None, after: Object, *, is_dry_run: bool) -> str:
    """By content: a dry run gives no new resource version, and every apply writes down who applied."""
    if before is not None and _content(before) == _content(after):
        return "unchanged"
    done = "created" if before is None else "configured"
    return f"would be {done}" if is_dry_run else done


def _content(thing: Object) -> Object:
    meta = {key: value for key, value in thing["metadata"].items() if key not in _BOOKKEEPING}
    return {key: value for key, value in thing.items() if key != "status"} | {"metadata": meta}
