"""How the processes of one attempt find each other in a store that may hold what an earlier attempt left.

torchrun starts a failed group again and keeps its store, with the addresses and messages of processes that are gone.
Each follower says hello with a name that nobody had before; rank 0 answers with the names it has heard, which tells the
living from the dead, until all have taken up the answer.
"""

import json
import time
import uuid
from collections.abc import Callable
from typing import TypeVar

from torch.distributed.distributed_c10d import PrefixStore, Store

from onlinerlhf.core.errors import StartupError

_POLL_SECONDS = 0.02
T = TypeVar("T")


def this_attempt(store: Store, *, rank: int, size: int, seconds: float) -> Store:
    """The part of the store that the processes of this attempt share with nobody else. StartupError: not all came."""
    shared = PrefixStore("attempts", store)
    lead_or_join = _lead if rank == 0 else _join
    return PrefixStore(lead_or_join(shared, rank, size, time.monotonic() + seconds), store)


def _lead(store: Store, rank: int, size: int, deadline: float) -> str:
    attempt = uuid.uuid4().hex

    def all_joined() -> bool:
        heard = {str(other): _read(store, f"hello/{other}") for other in range(1, size)}
        store.set("answer", json.dumps({"attempt": attempt, "heard": heard}))
        return all(_read(store, f"joined/{other}") == attempt for other in range(1, size))

    _until(all_joined, deadline, f"rank {rank} waits for {size - 1} others")
    return attempt


def _join(store: Store, rank: int, size: int, deadline: float) -> str:
    name = uuid.uuid4().hex
    store.set(f"hello/{rank}", name)

    def answered() -> str:
        answer = json.loads(_read(store, "answer") or '{"heard": {}}')
        return str(answer["attempt"]) if answer["heard"].get(str(rank)) == name else ""

    attempt = _until(answered, deadline, f"rank {rank} of {size} waits for rank 0")
    store.set(f"joined/{rank}", attempt)
    return attempt


def _read(store: Store, key: str) -> str:
    return bytes(store.get(key)).decode() if store.check([key]) else ""


def _until(condition: Callable[[], T], deadline: float, what: str) -> T:
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise StartupError(f"the learner's processes did not all come up: {what}")
        time.sleep(_POLL_SECONDS)
    return found
