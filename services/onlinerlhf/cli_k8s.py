"""`onlinerlhf k8s …`: install the platform on Kubernetes, size its pools, drain pods, look at it."""

import asyncio
import contextlib
import importlib.util
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from onlinerlhf.scaler.commands.cluster import Place

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(dir_okay=False, path_type=Path)
_SECONDS = click.FloatRange(min=0, min_open=True)


def place_options(command: F) -> F:
    """Which cluster and namespace."""
    for option in (
        click.option(
            "-n",
            "--namespace",
            default="onlinerlhf",
            envvar="ONLINERLHF_K8S_NAMESPACE",
            show_default=True,
            show_envvar=True,
            help="Where the platform lives.",
        ),
        click.option("--context", help="Of the kubeconfig.  [default: the current one]"),
        click.option("--kubeconfig", type=_FILE, help="[default: KUBECONFIG, or ~/.kube/config]"),
    ):
        command = option(command)
    return command


pool_option = click.option("--pool", help="Which one.  [default: the only one, or the one named default]")
no_wait_option = click.option("--no-wait", is_flag=True, help="Say what happens next, and do not wait for it.")


@click.group()
def k8s() -> None:
    """The platform on Kubernetes: install it, see why it has its size, change that, lose nothing.

    \b
      onlinerlhf k8s install --registry registry.example/rlhf --tag 1.4.0
      onlinerlhf k8s status --watch
      onlinerlhf k8s scale 6 --pool spot
      onlinerlhf k8s scale auto --pool spot
      onlinerlhf k8s pause
      onlinerlhf k8s drain onlinerlhf-rollout-default-7c9d5-x2x8q
      onlinerlhf k8s logs rollout -f --since 10m
    """
    if importlib.util.find_spec("kubernetes") is None:
        raise click.ClickException("the commands for Kubernetes need more packages: pip install 'onlinerlhf[scaler]'")


@k8s.command()
@click.option(
    "--values-set", help="Of deploy/manifests: minimal, gpu-prod, external-redis, tls, keda.  [default: minimal]"
)
@click.option("--manifest", "files", type=_FILE, multiple=True, help="A manifest of your own; may be repeated.")
@click.option("--registry", help="Take the platform's images from here, as registry.example/rlhf.")
@click.option("--tag", help="With this tag.  [default: as the manifest says]")
@click.option("--dry-run", is_flag=True, help="The API server checks everything, and nothing is changed.")
@click.option("--force-conflicts", is_flag=True, help="Take over fields that others own, as Helm or kubectl.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Until everything is ready.")
@click.option("--timeout", "seconds", type=_SECONDS, default=900.0, show_default=True, help="Seconds to wait.")
@place_options
def install(seconds: float, wait: bool, **options: Any) -> None:
    """Install or upgrade, by server-side apply: run it again to change what is there.

    In this order: custom resource definitions, the namespace (pods of the `restricted` standard only), a random
    password for Redis where there is none yet, and all the rest. What does not become ready within --timeout is listed
    with its reason, and the exit code is 1.

    \b
      onlinerlhf k8s install --dry-run
      onlinerlhf k8s install --registry registry.example/rlhf --tag 1.4.0
      onlinerlhf k8s install --values-set gpu-prod -n rlhf-prod --timeout 1800
      helm template onlinerlhf deploy/helm/onlinerlhf --include-crds -f my.yaml \\
        --set redis.auth.existingSecret=onlinerlhf-redis-auth > mine.yaml
      onlinerlhf k8s install --manifest mine.yaml
    """
    values_set, files = options["values_set"], options["files"]
    if values_set is not None and files:
        raise click.UsageError("give either --values-set or --manifest")
    from onlinerlhf.scaler.commands import install as command
    from onlinerlhf.scaler.commands.manifests import find_manifests

    wishes = command.Installation(
        manifests=files or find_manifests(values_set or "minimal"),
        registry=options["registry"],
        tag=options["tag"],
        is_dry_run=options["dry_run"],
        force_conflicts=options["force_conflicts"],
        wait_seconds=seconds if wait else None,
    )
    _run(command.install(_place(options), wishes))


@k8s.command()
@click.option("--json", "json_output", is_flag=True, help="For programs.")
@click.option("-w", "--watch", is_flag=True, help="Every 2 s, until Ctrl-C.")
@place_options
def status(json_output: bool, watch: bool, **options: Any) -> None:
    """Show the pools, why they have their size, and what is not ready.

    Without a scaler that leads, nothing that pools say is current: the first line tells.

    \b
      onlinerlhf k8s status
      onlinerlhf k8s status --watch
      onlinerlhf k8s status --json | jq '.pools[] | {name, desired, reason}'
    """
    if json_output and watch:
        raise click.UsageError("--json goes without --watch")
    from onlinerlhf.scaler.commands import status as command

    _run(command.show(_place(options), json_output=json_output, is_watching=watch), is_endless=watch)


@k8s.command()
@click.argument("size", metavar="N|auto")
@pool_option
@no_wait_option
@click.option("--timeout", "seconds", type=_SECONDS, default=900.0, show_default=True, help="Seconds to wait.")
@place_options
def scale(size: str, pool: str | None, no_wait: bool, seconds: float, **options: Any) -> None:
    """Fix the number of a pool's rollout workers, or let the scaler choose it again.

    A fixed size holds until `scale auto`, whatever the backlog. Pods that go finish or hand back their work first.

    \b
      onlinerlhf k8s scale 6
      onlinerlhf k8s scale 0 --pool spot
      onlinerlhf k8s scale auto --pool spot
    """
    if size != "auto" and not size.isdecimal():
        raise click.UsageError(f"N is a whole number from 0 up, or the word auto, not {size!r}")
    from onlinerlhf.scaler.commands import sizes as command

    replicas = None if size == "auto" else int(size)
    wait_seconds = None if no_wait else seconds
    _run(command.scale(_place(options), replicas=replicas, pool_name=pool, wait_seconds=wait_seconds))


@k8s.command()
@pool_option
@place_options
def pause(pool: str | None, **options: Any) -> None:
    """Stop the scaler from changing a pool: it keeps its size until `resume`.

    \b
      onlinerlhf k8s pause
      onlinerlhf k8s pause --pool spot
    """
    from onlinerlhf.scaler.commands import sizes as command

    _run(command.pause(_place(options), pool_name=pool, is_paused=True))


@k8s.command()
@pool_option
@place_options
def resume(pool: str | None, **options: Any) -> None:
    """Let the scaler change a paused pool again.

    \b
      onlinerlhf k8s resume --pool spot
    """
    from onlinerlhf.scaler.commands import sizes as command

    _run(command.pause(_place(options), pool_name=pool, is_paused=False))


@k8s.command()
@click.argument("pod", required=False)
@click.option("--pool", help="A whole pool instead: fix its size at 0, and wait until it is empty.")
@click.option("--timeout", "seconds", type=_SECONDS, default=1800.0, show_default=True, help="Seconds to wait.")
@place_options
def drain(pod: str | None, pool: str | None, seconds: float, **options: Any) -> None:
    """Take a pod or a pool out without losing work.

    A pod is evicted, so its disruption budget counts: where it allows no eviction now, that is waited for. The pod
    finishes or hands back what it holds; the command ends when it is gone and its Deployment is whole again.

    \b
      onlinerlhf k8s drain onlinerlhf-rollout-default-7c9d5-x2x8q
      onlinerlhf k8s drain --pool spot
    """
    if (pod is None) == (pool is None):
        raise click.UsageError("give either a POD or --pool")
    from onlinerlhf.scaler.commands import drain as command

    place = _place(options)
    if pod is not None:
        _run(command.drain_pod(place, name=pod, wait_seconds=seconds))
    elif pool is not None:
        _run(command.drain_pool(place, pool_name=pool, wait_seconds=seconds))


@k8s.command()
@click.argument("target", metavar="[ROOM|POD]", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C, with pods that come later.")
@click.option("--since", help="Newer than this: 90s, 10m, 2h, 1d.")
@click.option("--tail", type=click.IntRange(min=0), help="Newest lines of each pod.  [default: 100; all with --since]")
@place_options
def logs(target: str | None, follow: bool, since: str | None, tail: int | None, **options: Any) -> None:
    """Show the logs of a room's pods by time, each line with its pod's name.

    ROOM is gateway, rollout, reward, learner, redis, scaler, or models for the Job that makes them; a POD may be the
    beginning of a name. Without either: everything.

    \b
      onlinerlhf k8s logs learner --since 10m
      onlinerlhf k8s logs rollout -f
      onlinerlhf k8s logs onlinerlhf-rollout-default-7c9d5 --tail 1000
    """
    from onlinerlhf.scaler.commands import logs as command

    since_seconds = None if since is None else command.seconds_of(since)
    wanted = command.Wanted(
        target=target,
        is_following=follow,
        since_seconds=since_seconds,
        tail=100 if tail is None and since is None else tail,
    )
    _run(command.show(_place(options), wanted), is_endless=follow)


def _place(options: dict[str, Any]) -> "Place":
    from onlinerlhf.scaler.commands.cluster import Place

    return Place(namespace=options["namespace"], kubeconfig=options["kubeconfig"], context=options["context"])


def _run(job: Coroutine[Any, Any, None], *, is_endless: bool = False) -> None:
    """Ctrl-C is how an endless command ends well."""
    with contextlib.suppress(KeyboardInterrupt) if is_endless else contextlib.nullcontext():
        asyncio.run(job)
