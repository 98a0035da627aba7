"""Keeps as many rollout workers as were asked for last: the part of `onlinerlhf up` that does what `scale` wishes.

    desired.json ─► wish ─► what there is? ─┬ too few:  start a worker in the first free place
                                            └ too many: drain those with the least work in hand
                                                            (one that drains still has its place)

It looks at what is, not at what was done: a wish that comes while the last one is in progress simply takes its place.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import grpc

from onlinerlhf.core.errors import NotFound, OnlineRLHFError
from onlinerlhf.local import desired, probes
from onlinerlhf.local.child import Child, ChildSpec, ChildState
from onlinerlhf.local.desired import Wish
from onlinerlhf.local.platform import PlatformPlan, ProcessPlan, check_num_workers
from onlinerlhf.local.supervisor import Supervisor

LOOK_SECONDS = 0.5
_LEAVE_FIRST = (ChildState.FAILED, ChildState.BACKING_OFF, ChildState.STARTING, ChildState.READY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """A rollout worker that there is."""

    name: str
    state: ChildState
    num_in_flight: int = 0
    """Requests in its engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is missing to the wish."""

    start: tuple[str, ...] = ()
    retire: tuple[str, ...] = ()


def changes(num_desired: int, places: Sequence[str], present: Sequence[Present], *, is_new_wish: bool) -> Changes:
    """From what there is to what there should be. Pure. A worker that was given up is tried again by a new wish."""
    given_up = [each.name for each in present if is_new_wish and each.state is ChildState.FAILED]
    staying = [each for each in present if each.state in _LEAVE_FIRST and each.name not in given_up]
    taken = {each.name for each in present}
    free = [name for name in places if name not in taken]
    if len(staying) <= num_desired:
        return Changes(start=tuple(free[: num_desired - len(staying)]), retire=tuple(given_up))

    def least_loss_first(each: Present) -> tuple[int, int, int]:
        return _LEAVE_FIRST.index(each.state), each.num_in_flight, -places.index(each.name)

    surplus = sorted(staying, key=least_loss_first)[: len(staying) - num_desired]
    return Changes(retire=(*given_up, *(each.name for each in surplus)))


class WorkerScaler:
    """Level-triggered; `run` it beside the platform."""

    def __init__(
        self,
        plan: PlatformPlan,
        supervisor: Supervisor,
        *,
        child_spec: Callable[[ProcessPlan], ChildSpec],
        on_wish: Callable[[Wish], None],
        report: Callable[[str], None],
    ) -> None:
        self._plans: Mapping[str, ProcessPlan] = {worker.name: worker for worker in plan.workers}
        self._run_dir = plan.spec.run_dir
        self._supervisor = supervisor
        self._child_spec = child_spec
        self._on_wish = on_wish
        self._report = report
        self._wish = Wish(num_workers=plan.spec.rollout_workers, id="")
        self._complaint = ""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
                self._complain("")
            except (OnlineRLHFError, OSError) as error:
                self._complain(f"rollout workers stay as they are: {error}")
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """One comparison of wish and workers, and what follows from it."""
        is_new_wish = self._take_wish()
        children = self._children()
        num_staying = sum(not child.is_leaving for child in children.values())
        if num_staying == self._wish.num_workers and not is_new_wish:
            return
        # Only who is to leave needs to be known by its work.
        in_flight = await self._in_flight(children) if num_staying > self._wish.num_workers else {}
        present = [
            Present(name=name, state=child.state, num_in_flight=in_flight.get(name, 0))
            for name, child in children.items()
        ]
        todo = changes(self._wish.num_workers, list(self._plans), present, is_new_wish=is_new_wish)
        for name in todo.retire:
            self._report(f"draining {name}; rollout workers asked for: {self._wish.num_workers}")
            self._supervisor.retire(name)
        for name in todo.start:
            self._report(f"starting {name}; rollout workers asked for: {self._wish.num_workers}")
            self._supervisor.start(self._child_spec(self._plans[name]))

    def _take_wish(self) -> bool:
        try:
            wish = desired.read(self._run_dir)
        except NotFound:
            # Somebody removed it: what was asked for last still counts.
            return False
        if wish == self._wish:
            return False
        check_num_workers(wish.num_workers, len(self._plans))
        self._wish = wish
        self._on_wish(wish)
        return True

    def _children(self) -> dict[str, Child]:
        return {name: child for name, child in self._supervisor.children.items() if name in self._plans}

    async def _in_flight(self, children: Mapping[str, Child]) -> dict[str, int]:
        ready = [name for name, child in children.items() if child.state is ChildState.READY]
        return dict(zip(ready, await asyncio.gather(*(self._ask(name) for name in ready)), strict=True))

    async def _ask(self, name: str) -> int:
        """A worker that does not say what it has in hand is the first to go: it answers nobody."""
        try:
            async with probes.fresh_channel(self._plans[name].address) as channel:
                return (await probes.ask_rollout(channel, name)).num_in_flight
        except grpc.aio.AioRpcError:
            return -1

    def _complain(self, line: str) -> None:
        """Once, not twice a second."""
        if line != self._complaint:
            self._complaint = line
            if line:
                self._report(line)
