"""The platform in a namespace of a real cluster, and what the suite does with it. Every wait is bounded."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from click.testing import CliRunner
from kubernetes import client, stream
from kubernetes.client.exceptions import ApiException

from onlinerlhf.cli import OneLineErrors
from onlinerlhf.cli_k8s import k8s

T = TypeVar("T")

GROUP: Final = ("onlinerlhf.dev", "v1alpha1")
EXEC_SECONDS: Final = 300.0
PYTHON: Final = "/opt/venv/bin/python"
HERE: Final = Path(__file__).parent


class NotInTime(AssertionError):
    """A bounded wait ran out."""


def eventually(look: Callable[[], T | None], *, what: str, seconds: float, every: float = 2.0) -> T:
    """The first answer that is neither None nor False. Raises NotInTime, which says what was waited for."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        if time.monotonic() >= end:
            raise NotInTime(f"not within {seconds:g} s: {what}")
        time.sleep(every)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A command of `onlinerlhf k8s`."""

    code: int
    output: str


@dataclass(slots=True, kw_only=True)
class Platform:
    """One namespace."""

    api: Any
    """A `kubernetes.client.ApiClient`."""
    kubeconfig: Path
    namespace: str
    manifests: tuple[Path, ...]
    run_id: str = "default"
    client_pod: str = ""
    sent: list[str] = field(default_factory=list)
    """Sample ids of everything that was taken in as training data."""

    @property
    def manifest_options(self) -> list[str]:
        """For `install`."""
        return [word for path in self.manifests for word in ("--manifest", str(path))]

    @property
    def core(self) -> Any:
        """Pods, Services and so on."""
        return client.CoreV1Api(self.api)

    def k8s(self, *arguments: str) -> Ran:
        """`onlinerlhf k8s …` on this namespace, in this process."""
        options = ["--kubeconfig", str(self.kubeconfig), "-n", self.namespace]
        found = CliRunner().invoke(group(), [arguments[0], *options, *arguments[1:]], prog_name="onlinerlhf k8s")
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        return Ran(code=found.exit_code, output=found.output)

    def pods(self, component: str = "") -> list[Any]:
        """Those that are not on their way out."""
        labels = "app.kubernetes.io/name=onlinerlhf"
        if component:
            labels += f",app.kubernetes.io/component={component}"
        found = self.core.list_namespaced_pod(self.namespace, label_selector=labels).items
        return [pod for pod in found if pod.metadata.deletion_timestamp is None]

    def ready_pod(self, component: str) -> str:
        """Name of one that takes traffic, waited for."""

        def look() -> str | None:
            return next((str(pod.metadata.name) for pod in self.pods(component) if is_ready(pod)), None)

        return eventually(look, what=f"a ready pod of {component}", seconds=600)

    def pool(self, name: str = "default") -> dict[str, Any]:
        """A RolloutPool."""
        custom = client.CustomObjectsApi(self.api)
        found: dict[str, Any] = custom.get_namespaced_custom_object(*GROUP, self.namespace, "rolloutpools", name)
        return found

    def patch_pool(self, spec: dict[str, Any], name: str = "default") -> dict[str, Any]:
        """JSON merge patch of its spec. Raises ApiException."""
        path = f"/apis/{GROUP[0]}/{GROUP[1]}/namespaces/{self.namespace}/rolloutpools/{name}"
        return self.request("PATCH", path, {"spec": spec}, content_type="application/merge-patch+json")

    def request(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json"
    ) -> dict[str, Any]:
        """A call that the generated client has no good words for. Raises ApiException."""
        headers = {"Accept": "application/json", "Content-Type": content_type}
        sent = self.api.param_serialize(method, path, header_params=headers, body=body, auth_settings=["BearerToken"])
        answer = self.api.call_api(*sent, _request_timeout=30)
        data = answer.read()
        if answer.status >= 400:
            raise ApiException(status=answer.status, reason=data.decode("utf-8", "replace"))
        found: dict[str, Any] = json.loads(data)
        return found

    def service(self, component: str) -> str:
        """Name of a room's Service that has an address of its own."""
        labels = f"app.kubernetes.io/component={component}"
        found = self.core.list_namespaced_service(self.namespace, label_selector=labels).items
        return str(next(each.metadata.name for each in found if each.spec.cluster_ip != "None"))

    def run_in(self, pod: str, command: Sequence[str], *, seconds: float = EXEC_SECONDS) -> str:
        """What a command in a pod prints. Raises AssertionError where it fails, with the end of what it said."""
        # A client of its own: while a stream is opened, the client it came from can do nothing else.
        core = client.CoreV1Api(client.ApiClient(self.api.configuration))
        answer = stream.stream(
            core.connect_get_namespaced_pod_exec,
            pod,
            self.namespace,
            command=list(command),
            stdin=False,
            stdout=True,
            stderr=True,
            tty=False,
            _preload_content=False,
            _request_timeout=30,
        )
        return collect(answer, what=f"{command[0]} in {pod}", seconds=seconds)

    def in_client(self, order: dict[str, Any], *, seconds: float = EXEC_SECONDS) -> dict[str, Any]:
        """What `pod_client.py` prints for an order, from the pod that stands for the cluster's other users."""
        order = {"target": f"dns:///{self.service('gateway')}:50051", **order}
        source = (HERE / "pod_client.py").read_text(encoding="utf-8")
        printed = self.run_in(self.client_pod, [PYTHON, "-c", source, json.dumps(order)], seconds=seconds)
        found: dict[str, Any] = last_json(printed)
        self.sent.extend(found["samples"])
        return found

    def ledger(self, sample_ids: Sequence[str] = ()) -> dict[str, Any]:
        """What `pod_ledger.py` prints, from a gateway pod, with the states of these samples (None: it has none)."""
        source = (HERE / "pod_ledger.py").read_text(encoding="utf-8")
        pod = self.ready_pod("gateway")
        found = last_json(self.run_in(pod, [PYTHON, "-c", source]))
        return {**found, "states": {each: found["states"].get(each) for each in sample_ids}}

    def wait_until_whole(self, *, seconds: float = 900.0) -> None:
        """Until `k8s status` finds nothing to wait for."""

        def look() -> bool:
            ran = self.k8s("status", "--json")
            if ran.code != 0:
                return False
            found = last_json(ran.output)
            return bool(all(each["is_done"] for each in found["workloads"]) and not found["waits"])

        eventually(look, what="all workloads ready", seconds=seconds)


def group() -> OneLineErrors:
    """The commands, with errors turned to one line as on the command line."""
    return OneLineErrors(name="k8s", commands=dict(k8s.commands))


def collect(answer: Any, *, what: str, seconds: float) -> str:
    """Standard output of a WebSocket exec, until its end. Raises AssertionError where it fails or takes too long."""
    try:
        answer.run_forever(timeout=seconds)
        if answer.is_open():
            raise NotInTime(f"{what}: not within {seconds:g} s; it said: {answer.read_stderr(timeout=0)[-2000:]}")
        out, err = answer.read_stdout(timeout=0), answer.read_stderr(timeout=0)
        try:
            code = answer.returncode
        except TypeError:
            # The connection ended without the channel that tells how the command did.
            raise AssertionError(f"{what}: the connection broke off; it said: {err[-2000:]}") from None
    finally:
        answer.close()
        # Where the other end closed first the client leaves its socket open.
        answer.sock.shutdown()
    if code != 0:
        raise AssertionError(f"{what} ended with {code}: {err[-2000:]}")
    return str(out)


def last_json(printed: str) -> dict[str, Any]:
    """The JSON object that ends what was printed; whatever a library says before it does not matter."""
    at = printed.find("{\n") if printed.lstrip().startswith("{\n") else printed.rstrip().rfind("\n") + 1
    found = json.loads(printed[max(at, 0) :])
    if not isinstance(found, dict):
        raise AssertionError(f"no JSON object but {type(found).__name__}")
    return found


def is_ready(pod: Any) -> bool:
    """Whether it takes traffic."""
    return any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions or ())
