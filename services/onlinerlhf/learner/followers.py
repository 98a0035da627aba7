"""Learners of several processes: rank 0 leads, the others follow.

Rank 0 runs the service as a single process would, and is the only one that talks to Redis and to clients. Before it
does what takes all ranks, it says so (`Leader`); the others wait for that and do the same at the same time (`follow`).
"""

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from torch.distributed.distributed_c10d import Store

from onlinerlhf.core.errors import NonFiniteLoss
from onlinerlhf.learner.orders import Orders
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.ppo_state import exported, gather, restore
from onlinerlhf.learner.ranks import Ranks
from onlinerlhf.learner.tasks import Build, Export, Gather, Learn, Restore, Stop, Task, described, receive, send_tensors

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader(Ranks):
    """Rank 0 of several."""

    orders: Orders

    def announce(self, task: Task) -> None:
        """Tell the others."""
        self.orders.give(described(task), is_collective=not isinstance(task, Build))
        send_tensors(task)


@contextmanager
def leading(ranks: Ranks, store: Store) -> Iterator[Leader]:
    """Lead the others, and let them go at the end."""
    orders = Orders(store)
    with orders.alive():
        try:
            yield Leader(rank=ranks.rank, size=ranks.size, mesh=ranks.mesh, orders=orders)
        finally:
            try:
                orders.give(described(Stop()), is_collective=False)
            except RuntimeError as error:
                _log.error("the other ranks were not told to stop", extra={"error": str(error).partition("\n")[0]})


def follow(ranks: Ranks, store: Store, build: Callable[[], PPO]) -> None:
    """Do what rank 0 says until it says stop. StartupError: it is gone, or this rank cannot go on."""
    orders, ending = Orders(store), _ending_signals()
    device = ranks.mesh.device_type if ranks.mesh else "cpu"
    ppo: PPO | None = None
    while True:
        order = orders.next(is_ending=lambda: bool(ending))
        with ranks.in_step("hear from rank 0"):
            task = receive(order, device=device)
        if isinstance(task, Stop):
            return
        if isinstance(task, Build):
            ppo = None  # Its memory is needed.
            ppo = build()
        else:
            assert ppo is not None  # noqa: S101 - rank 0 builds before all else
            _do(task, ppo)


def _do(task: Task, ppo: PPO) -> None:
    match task:
        case Learn(batch):
            try:
                with ppo.ranks.together(task):
                    ppo.learn(batch)
            except NonFiniteLoss as error:
                _log.warning("step undone", extra={"error": str(error)})
        case Gather():
            gather(ppo)
        case Export(averaged):
            exported(ppo, averaged=averaged)
        case Restore(parts, numbers):
            restore(ppo, parts, numbers)


def _ending_signals() -> list[int]:
    """Fills when torchrun passes on SIGTERM or SIGINT: rank 0 gets it too, finishes its step, and then says stop."""
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    return received
