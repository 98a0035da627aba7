"""The Kubernetes API in a few typed calls. Each has a time-out, and each failure is an error of the one tree.

The official client brings credentials, TLS and connections. Objects stay what they are on the wire, JSON: its models
drop fields that they do not know, and a controller must write back what it read.
"""

import asyncio
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.scaler.kinds import POD, Kind
from onlinerlhf.scaler.kube_errors import ApiAway, error_of

Json: TypeAlias = dict[str, Any]

CALL_SECONDS: Final = 10.0
WATCH_SLACK_SECONDS: Final = 10.0
"""How much later than it was told the server may end a watch before the connection counts as dead."""
FIELD_MANAGER: Final = "onlinerlhf-scaler"
MERGE: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
IN_CLUSTER_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_VERBS: Final = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Kube:
    """A cluster as one user sees it. Close it, or use it as a context."""

    def __init__(self, client: Any, *, namespace: str, field_manager: str = FIELD_MANAGER) -> None:
        self._client = client
        self._field_manager = field_manager
        self.namespace = namespace
        """Where calls go that name none."""

    @classmethod
    async def connect(
        cls, kubeconfig: Path | None, *, namespace: str | None = None, field_manager: str = FIELD_MANAGER
    ) -> Self:
        """Read credentials; nothing is sent yet. None: the pod's own. Raises ConfigError."""
        configuration = Configuration()
        # Python 3.13 on its own would refuse the authorities of clusters made years ago, which lack an extension.
        configuration.disable_strict_ssl_verification = True
        own = "default"
        try:
            if kubeconfig is None:
                load_incluster_config(client_configuration=configuration)
                own = IN_CLUSTER_NAMESPACE.read_text().strip()
            else:
                loader = await load_kube_config(
                    config_file=str(kubeconfig), client_configuration=configuration, persist_config=False
                )
                own = dict(loader.current_context.get("context") or {}).get("namespace") or own
        except (ConfigException, OSError) as error:
            where = (
                "this is no pod with a service account, and no kubeconfig is set" if kubeconfig is None else kubeconfig
            )
            raise ConfigError(f"no access to a Kubernetes cluster: {where}: {error}") from error
        return cls(ApiClient(configuration), namespace=namespace or own, field_manager=field_manager)

    async def get(
        self,
        kind: Kind,
        name: str,
        *,
        namespace: str | None = None,
        subresource: str = "",
        timeout_seconds: float = CALL_SECONDS,
    ) -> Json:
        """One object. Raises NotFound."""
        return await self._json("GET", kind, name, subresource, namespace, timeout_seconds=timeout_seconds)

    async def list(self, kind: Kind, *, namespace: str | None = None, selector: str = "") -> Json:
        """All objects that the label selector fits: `items`, and `metadata.resourceVersion`."""
        query = {"labelSelector": selector} if selector else {}
        return await self._json("GET", kind, "", "", namespace, query=query)

    async def create(
        self,
        kind: Kind,
        body: Json,
        *,
        namespace: str | None = None,
        name: str = "",
        subresource: str = "",
        timeout_seconds: float = CALL_SECONDS,
    ) -> Json:
        """A new object, or (with a name) what a subresource does, like `eviction`. Raises AlreadyExists."""
        return await self._json("POST", kind, name, subresource, namespace, body=body, timeout_seconds=timeout_seconds)

    async def replace(
        self, kind: Kind, body: Json, *, namespace: str | None = None, timeout_seconds: float = CALL_SECONDS
    ) -> Json:
        """The whole object. Raises Conflict where the `resourceVersion` in it is not the newest."""
        return await self._json(
            "PUT", kind, body["metadata"]["name"], "", namespace, body=body, timeout_seconds=timeout_seconds
        )

    async def patch(
        self,
        kind: Kind,
        name: str,
        body: Json,
        *,
        namespace: str | None = None,
        subresource: str = "",
        content_type: str = MERGE,
        timeout_seconds: float = CALL_SECONDS,
    ) -> Json:
        """Part of an object. Raises Conflict where the patch names a `resourceVersion` that is not the newest."""
        return await self._json(
            "PATCH",
            kind,
            name,
            subresource,
            namespace,
            body=body,
            content_type=content_type,
            timeout_seconds=timeout_seconds,
        )

    async def apply(self, kind: Kind, body: Json, *, namespace: str | None = None, force: bool = False) -> Json:
        """Server-side apply: create it, or make the fields in `body` so. Raises Conflict where another owns them."""
        return await self._json(
            "PATCH",
            kind,
            body["metadata"]["name"],
            "",
            namespace,
            body=body,
            content_type=APPLY,
            query={"force": "true"} if force else {},
        )

    async def delete(self, kind: Kind, name: str, *, namespace: str | None = None) -> Json:
        """Ask for its deletion. Raises NotFound."""
        return await self._json("DELETE", kind, name, "", namespace)

    async def watch(
        self, kind: Kind, *, namespace: str | None = None, resource_version: str = "", seconds: float
    ) -> AsyncGenerator[tuple[str, Json], None]:
        """(ADDED | MODIFIED | DELETED | BOOKMARK, object) as they come; ends after `seconds`. Raises Expired.

        Without a resource version it begins with ADDED for every object that there is.
        """
        query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(math.ceil(seconds))}
        if resource_version:
            query["resourceVersion"] = resource_version
        what = f"watch {kind.resource}"
        async with aclosing(self._lines(what, kind.path(namespace or self.namespace), query, seconds)) as lines:
            async for line in lines:
                event = _strict(line, what)
                if event.get("type") == "ERROR":
                    status = event.get("object", {})
                    raise error_of(int(status.get("code", 500)), status, what=what)
                yield event.get("type", ""), event.get("object", {})

    async def logs(
        self, pod: str, *, namespace: str | None = None, tail_lines: int = 100, follow_seconds: float = 0
    ) -> AsyncGenerator[str, None]:
        """A pod's log, line by line; with `follow_seconds`, as it is written, for that long."""
        query = {"tailLines": str(tail_lines)} | ({"follow": "true"} if follow_seconds else {})
        path = POD.path(namespace or self.namespace, pod, "log")
        async with aclosing(self._lines("get pods/log", path, query, follow_seconds)) as lines:
            async for line in lines:
                yield line.decode("utf-8", "replace").rstrip("\n")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _json(
        self,
        method: str,
        kind: Kind,
        name: str,
        subresource: str,
        namespace: str | None,
        *,
        body: Json | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        timeout_seconds: float = CALL_SECONDS,
    ) -> Json:
        verb = "list" if method == "GET" and not name else _VERBS[method]
        what = f"{verb} {kind.resource}{'/' if subresource else ''}{subresource} {name}".rstrip()
        query = {**(query or {}), **({"fieldManager": self._field_manager} if body is not None else {})}
        path = kind.path(namespace or self.namespace, name, subresource)
        timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        async with self._answer(what, method, path, query, timeout, body=body, content_type=content_type) as answer:
            return _strict(await answer.read(), what)

    async def _lines(
        self, what: str, path: str, query: Mapping[str, str], seconds: float
    ) -> AsyncGenerator[bytes, None]:
        timeout = aiohttp.ClientTimeout(
            total=seconds + 2 * WATCH_SLACK_SECONDS, sock_connect=CALL_SECONDS, sock_read=seconds + WATCH_SLACK_SECONDS
        )
        async with self._answer(what, "GET", path, query, timeout) as answer:
            async for line in answer.content:
                yield line

    @asynccontextmanager
    async def _answer(
        self,
        what: str,
        method: str,
        path: str,
        query: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 aiohttp's own
        *,
        body: Json | None = None,
        content_type: str = "application/json",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"Accept": "application/json, */*", "Content-Type": content_type}
        try:
            request = await self._client.param_serialize(
                method, path, query_params=list(query.items()), header_params=headers, body=body,
                auth_settings=["BearerToken"],
            )  # fmt: skip
            answer: aiohttp.ClientResponse = (await self._client.call_api(*request, _request_timeout=timeout)).response
            try:
                if answer.status >= 400:
                    raise error_of(
                        answer.status, _object(await answer.read()), what=what, retry_after_seconds=_retry_after(answer)
                    )
                yield answer
            finally:
                answer.close() if not answer.content.at_eof() else answer.release()
        except ConfigException as error:
            raise ApiAway(f"{what}: the credentials cannot be read anew: {error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            late = isinstance(error, TimeoutError | asyncio.TimeoutError)
            why = "does not answer in time" if late else f"cannot be reached ({type(error).__name__})"
            raise ApiAway(f"{what}: the API server {why}") from error


def _strict(data: bytes, what: str) -> Json:
    """A good answer's JSON object. What stands before an API server may answer with anything, under any code."""
    found = _object(data)
    if not found:
        raise ApiAway(f"{what}: the answer is not the API server's")
    return found


def _object(data: bytes) -> Json:
    """The JSON object, or nothing: a failure's code alone is told apart."""
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _retry_after(answer: aiohttp.ClientResponse) -> float | None:
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None
