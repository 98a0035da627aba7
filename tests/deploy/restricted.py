"""The Pod Security Standard `restricted`, as its admission controller checks it: what is wrong with a pod's spec.

https://kubernetes.io/docs/concepts/security/pod-security-standards/ (Linux pods; Windows is not looked at).
"""

from collections.abc import Iterator
from typing import Any, Final

VOLUMES: Final = frozenset(
    ("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret")
)
SYSCTLS: Final = frozenset(
    (
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
    )
)
SECCOMP: Final = ("RuntimeDefault", "Localhost")
SELINUX: Final = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
HOST_FIELDS: Final = ("hostNetwork", "hostPID", "hostIPC")
CONTAINERS: Final = ("containers", "initContainers", "ephemeralContainers")


def violations(spec: dict[str, Any]) -> list[str]:
    """What the policy refuses, each with where it is; empty for a pod that it admits."""
    found = [*_of_pod(spec)]
    for kind in CONTAINERS:
        for container in spec.get(kind) or []:
            context = container.get("securityContext") or {}
            where = f"{kind} {container['name']}"
            found += [f"{where}: {what}" for what in _of_container(container, context)]
            found += [f"{where}: {what}" for what in _of_identity(context, spec.get("securityContext") or {})]
    return found


def _of_pod(spec: dict[str, Any]) -> Iterator[str]:
    context = spec.get("securityContext") or {}
    yield from (f"{field} is set" for field in HOST_FIELDS if spec.get(field))
    yield from _of_context(context)
    for sysctl in context.get("sysctls") or []:
        if sysctl["name"] not in SYSCTLS:
            yield f"sysctl {sysctl['name']} is not a safe one"
    for volume in spec.get("volumes") or []:
        kinds = set(volume) - {"name"}
        if not kinds <= VOLUMES or not kinds:
            yield f"volume {volume['name']} is {', '.join(kinds) or 'of no kind'}"


def _of_container(container: dict[str, Any], context: dict[str, Any]) -> Iterator[str]:
    yield from _of_context(context)
    if context.get("privileged"):
        yield "privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if context.get("procMount", "Default") != "Default":
        yield f"procMount is {context['procMount']}"
    capabilities = context.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or []):
        yield "does not drop ALL capabilities"
    if more := set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
        yield f"adds capabilities {', '.join(sorted(more))}"
    if any(port.get("hostPort") for port in container.get("ports") or []):
        yield "has a host port"
    for action in _actions(container):
        if any((action.get(kind) or {}).get("host") for kind in ("httpGet", "tcpSocket")):
            yield "a probe or lifecycle hook names a host"


def _of_identity(context: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    """What a container may leave to its pod."""
    if context.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not true"
    if context.get("runAsUser", pod.get("runAsUser")) == 0:
        yield "runs as user 0"
    seccomp = context.get("seccompProfile", pod.get("seccompProfile")) or {}
    if seccomp.get("type") not in SECCOMP:
        yield f"seccomp profile is {seccomp.get('type')}"


def _of_context(context: dict[str, Any]) -> Iterator[str]:
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("type", "") not in SELINUX or selinux.get("user") or selinux.get("role"):
        yield "seLinuxOptions are not among those allowed"
    if (context.get("appArmorProfile") or {}).get("type", "RuntimeDefault") not in SECCOMP:
        yield "AppArmor is off"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield "is a host process"


def _actions(container: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        yield container.get(name) or {}
    yield from (container.get("lifecycle") or {}).values()
