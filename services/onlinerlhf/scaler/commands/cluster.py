"""The operator's connection to a cluster: the scaler's calls, and those that a person at a terminal needs besides."""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_kube_config

from onlinerlhf.core.errors import ConfigError, NotFound, PermissionDenied, Unauthenticated, Unavailable
from onlinerlhf.scaler.kinds import POD, Kind
from onlinerlhf.scaler.kube import APPLY, Json, Kube, _strict
from onlinerlhf.scaler.kube_errors import ApiAway

Object = Json
"""A Kubernetes object as JSON has it."""

REQUEST_SECONDS: Final = 20.0
CONNECT_SECONDS: Final = 5.0
MAX_FOLLOW_SECONDS: Final = 86_400.0
PAGE: Final = 500
FIELD_MANAGER: Final = "onlinerlhf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which cluster, and which namespace of it."""

    namespace: str
    kubeconfig: Path | None = None
    """None: KUBECONFIG, or ~/.kube/config."""
    context: str | None = None
    """None: the current one."""


class Cluster(Kube):
    """An API server, and one namespace. Every call ends within REQUEST_SECONDS."""

    def __init__(self, client: Any, *, namespace: str) -> None:
        super().__init__(client, namespace=namespace, field_manager=FIELD_MANAGER)
        self.now = datetime.now(UTC)
        """The API server's clock, as of its newest reply."""

    @property
    def host(self) -> str:
        """URL of the API server."""
        return str(self._client.configuration.host)

    async def read(self, path: str, *, query: Mapping[str, str] | None = None) -> Object:
        """What a path of the API answers with. Raises NotFound."""
        return await self._call("GET", path, query=query or {})

    async def find(self, kind: Kind, name: str) -> Object | None:
        """One object, or None."""
        try:
            return await self.read(kind.path(self.namespace, name))
        except NotFound:
            return None

    async def items(self, kind: Kind, *, labels: str = "", fields: str = "") -> list[Object]:
        """All objects that the selectors fit, page by page. They bring no `kind`, as everywhere in lists."""
        query = {"limit": str(PAGE), "labelSelector": labels, "fieldSelector": fields}
        found: list[Object] = []
        while True:
            given = {key: value for key, value in query.items() if value}
            page = await self.read(kind.path(self.namespace), query=given)
            found.extend(page.get("items") or [])
            query["continue"] = (page.get("metadata") or {}).get("continue") or ""
            if not query["continue"]:
                return found

    async def declare(self, kind: Kind, body: Object, *, dry_run: bool = False, force: bool = False) -> Object:
        """Server-side apply: create it, or make the fields in `body` so. Raises Conflict where another owns them."""
        query = {"force": "true"} if force else {}
        if dry_run:
            query["dryRun"] = "All"
        path = kind.path(self.namespace, body["metadata"]["name"])
        return await self._call("PATCH", path, query=query, body=body, content_type=APPLY)

    async def remove(self, kind: Kind, name: str) -> None:
        """Delete an object and what it owns. One that is not there is removed already."""
        try:
            await self._call("DELETE", kind.path(self.namespace, name), query={"propagationPolicy": "Background"})
        except NotFound:
            return

    async def log_lines(self, pod: str, *, query: Mapping[str, str]) -> AsyncIterator[str]:
        """A pod's log; with `follow`, until the pod ends or a day has passed."""
        path = POD.path(self.namespace, pod, "log")
        async with aclosing(self._lines(f"logs of {pod}", path, query, MAX_FOLLOW_SECONDS)) as lines:
            async for line in lines:
                yield line.decode("utf-8", "replace").rstrip("\r\n")

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        what = f"{method} {path}"
        query = {**query, **({"fieldManager": FIELD_MANAGER} if body is not None else {})}
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS)
        try:
            async with self._answer(what, method, path, query, timeout, body=body, content_type=content_type) as answer:
                if date := answer.headers.get("Date"):
                    self.now = parsedate_to_datetime(date)
                return _strict(await answer.read(), what)
        except PermissionDenied:
            raise PermissionDenied(f"the cluster forbids {what} with these credentials") from None


@asynccontextmanager
async def connected(place: Place) -> AsyncIterator[Cluster]:
    """A cluster that answers. Raises ConfigError without a kubeconfig, Unavailable and Unauthenticated without one."""
    configuration = Configuration()
    source = str(place.kubeconfig) if place.kubeconfig is not None else None
    try:
        loader = await load_kube_config(
            config_file=source, context=place.context, client_configuration=configuration, persist_config=False
        )
    except (ConfigException, yaml.YAMLError, OSError, TypeError, LookupError, ValueError, AttributeError) as error:
        # The last four are how the client stumbles over a file that is no kubeconfig.
        is_worded = isinstance(error, ConfigException | OSError) and str(error)
        words = str(error).splitlines()[0] if is_worded else f"{source or 'KUBECONFIG'} is not one"
        advice = "give --kubeconfig and --context, or set KUBECONFIG"
        raise ConfigError(f"no usable kubeconfig: {words.rstrip('.')}; {advice}") from None
    _renew_tokens(configuration, loader)
    # Authorities that older clusters made for themselves lack extensions that Python 3.13 insists on. Chain, name and
    # dates are verified.
    configuration.disable_strict_ssl_verification = True
    async with ApiClient(configuration) as client:
        cluster = Cluster(client, namespace=place.namespace)
        try:
            await cluster.read("/version")
        except ApiAway as error:
            raise Unavailable(f"no cluster at {cluster.host}: {error}") from None
        except Unauthenticated:
            advice = "log in again, or choose another --context"
            raise Unauthenticated(f"the cluster at {cluster.host} does not take these credentials: {advice}") from None
        yield cluster


def _renew_tokens(configuration: Any, loader: Any) -> None:
    """Ask the kubeconfig's plugin anew before its token ends: clouds give them for minutes, and waits may be longer."""
    if not hasattr(loader, "exec_plugin_expiry"):
        # No plugin, or one whose token has no end: asked at every call it would be slow.
        return

    async def renew(client_configuration: Any) -> None:
        # Until five minutes before the end this does nothing.
        await loader.load_from_exec_plugin()
        client_configuration.api_key["BearerToken"] = loader.token

    configuration.refresh_api_key_hook = renew
