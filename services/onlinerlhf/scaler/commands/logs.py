"""`onlinerlhf k8s logs`: the logs of a room's pods in one stream, each line with its pod's name."""

import asyncio
import re
import sys
from dataclasses import dataclass
from typing import Final

import click

from onlinerlhf.core.errors import InvalidInput, NotFound, OnlineRLHFError
from onlinerlhf.scaler.commands.cluster import Cluster, Object, Place, connected
from onlinerlhf.scaler.commands.kinds import COMPONENT_LABEL, OURS
from onlinerlhf.scaler.kinds import POD

RELIST_SECONDS: Final = 3.0
_COLOURS: Final = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green", "bright_magenta")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which lines."""

    target: str | None
    """A room, a pod, or None: everything."""
    is_following: bool = False
    since_seconds: int | None = None
    tail: int | None = 100
    """Newest lines of each pod; None: all."""

    def query(self, pod: Object, *, tail: int | None, since: str = "") -> dict[str, str]:
        """Of the pod's log endpoint. Time stamps are asked for to sort by, and not shown."""
        asked = {
            "container": container_of(pod),
            "timestamps": "true",
            "sinceTime": since,
            "follow": "true" if self.is_following else "",
            "sinceSeconds": "" if self.since_seconds is None or since else str(self.since_seconds),
            "tailLines": "" if tail is None else str(tail),
        }
        return {key: value for key, value in asked.items() if value}


def seconds_of(text: str) -> int:
    """`90s`, `10m`, `2h`, `1d`. Raises InvalidInput."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match is None or int(match[1]) == 0:
        raise InvalidInput(f"--since takes a length of time like 90s, 10m, 2h or 1d, not {text!r}")
    return int(match[1]) * _UNITS[match[2]]


async def show(place: Place, wanted: Wanted) -> None:
    """Print them; following, until Ctrl-C."""
    async with connected(place) as cluster:
        pods = await _pods(cluster, wanted.target)
        if not pods:
            raise await _nothing(cluster, wanted.target)
        if wanted.is_following:
            await _Follower(cluster, wanted).run()
        else:
            await _print_merged(cluster, wanted, pods)


async def _pods(cluster: Cluster, target: str | None) -> list[Object]:
    """Of a room by its name, else the pods whose name begins so."""
    pods = await cluster.items(POD, labels=OURS)
    if target is None:
        return pods
    of_room = [each for each in pods if each["metadata"]["labels"].get(COMPONENT_LABEL) == target]
    return of_room or [each for each in pods if each["metadata"]["name"].startswith(target)]


async def _nothing(cluster: Cluster, target: str | None) -> OnlineRLHFError:
    pods = await cluster.items(POD, labels=OURS)
    rooms = sorted({each["metadata"]["labels"].get(COMPONENT_LABEL, "") for each in pods})
    if target is None or not pods:
        return NotFound(f"namespace {cluster.namespace} has no pods of the platform; -n names another")
    names = sorted(each["metadata"]["name"] for each in pods)
    return NotFound(f"no room or pod {target!r}; rooms: {', '.join(rooms)}; pods: {', '.join(names)}")


async def _print_merged(cluster: Cluster, wanted: Wanted, pods: list[Object]) -> None:
    """By time. A pod whose log cannot be read costs its own lines, and says so."""

    async def read(pod: Object) -> list[tuple[str, str, str]]:
        name = pod["metadata"]["name"]
        try:
            query = wanted.query(pod, tail=wanted.tail)
            return [(*_split(line), name) async for line in cluster.log_lines(name, query=query)]
        except OnlineRLHFError as error:
            _say(f"{name}: {error}")
            return []

    pages = await asyncio.gather(*(read(pod) for pod in pods))
    prefix = Prefix([each["metadata"]["name"] for each in pods])
    for _, line, name in sorted((each for page in pages for each in page), key=lambda each: each[0]):
        click.echo(f"{prefix.of(name)} {line}")


class _Follower:
    """Follows the pods that there are, those that come, and those whose container starts again."""

    def __init__(self, cluster: Cluster, wanted: Wanted) -> None:
        self._cluster = cluster
        self._wanted = wanted
        self._following: set[str] = set()
        self._last: dict[str, str] = {}
        """Time stamp of the newest line shown, by the pod's uid."""
        self._prefix = Prefix([])

    async def run(self) -> None:
        """Until cancelled."""
        tail = self._wanted.tail
        async with asyncio.TaskGroup() as tasks:
            while True:
                for pod in await self._look():
                    uid = pod["metadata"]["uid"]
                    if uid not in self._following and self._may_have_more(pod):
                        self._following.add(uid)
                        tasks.create_task(self._follow(pod, tail), name=f"logs of {pod['metadata']['name']}")
                # Pods that come later are shown from their first line.
                tail = None
                await asyncio.sleep(RELIST_SECONDS)

    async def _look(self) -> list[Object]:
        try:
            return await _pods(self._cluster, self._wanted.target)
        except OnlineRLHFError as error:
            _say(str(error))
            return []

    def _may_have_more(self, pod: Object) -> bool:
        phase = (pod.get("status") or {}).get("phase")
        return phase == "Running" or (phase in ("Succeeded", "Failed") and pod["metadata"]["uid"] not in self._last)

    async def _follow(self, pod: Object, tail: int | None) -> None:
        """To the end of the stream, which is where its container ends or the connection does."""
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        seen = self._last.setdefault(uid, "")
        query = self._wanted.query(pod, tail=None if seen else tail, since=seen)
        try:
            async for line in self._cluster.log_lines(name, query=query):
                stamp, words = _split(line)
                # Asked for by the second, lines of that second come again.
                if stamp > seen:
                    click.echo(f"{self._prefix.of(name)} {words}")
                    self._last[uid] = stamp
        except OnlineRLHFError as error:
            _say(f"{name}: {error}")
        finally:
            self._following.discard(uid)


class Prefix:
    """A pod's name, padded to the longest so far, in a colour of its own where that can be seen."""

    def __init__(self, names: list[str]) -> None:
        self._width = max(map(len, names), default=0)
        self._colours: dict[str, str] = {}

    def of(self, name: str) -> str:
        """click leaves the colour out where the output is no terminal."""
        self._width = max(self._width, len(name))
        colour = self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])
        return click.style(f"{name:<{self._width}} |", fg=colour)


def _split(line: str) -> tuple[str, str]:
    """The kubelet's time stamp, and the line."""
    stamp, _, rest = line.partition(" ")
    return stamp, rest


def container_of(pod: Object) -> str:
    """The room's own; others, that a mesh may add, are not meant."""
    named = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
    containers = (pod.get("spec") or {}).get("containers") or []
    return str(named or (containers[0]["name"] if containers else ""))


def _say(words: str) -> None:
    """Beside the logs, not among them."""
    print(f"-- {words}", file=sys.stderr)
