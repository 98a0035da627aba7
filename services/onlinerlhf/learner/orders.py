"""How rank 0 tells the others what to do: numbered messages in the store that torchrun keeps, and a sign of life.

The others wait here for as long as there is nothing to learn from. A collective operation could not: its wait is
bounded, so that a rank that is lost within a pass ends the others.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from torch.distributed.distributed_c10d import PrefixStore, Store

from onlinerlhf.core.errors import StartupError

_log = logging.getLogger(__name__)
_BEAT_SECONDS = 2.0
_POLL_SECONDS = 0.02
_STORE_SECONDS = 30.0
# Loading a large model can keep the interpreter from running the thread that gives the sign.
MAX_SILENCE_SECONDS = 120.0
# Once everybody has been told to end: torchrun kills what is left 30 s after its SIGTERM.
MAX_SILENCE_AT_END_SECONDS = 15.0


class Orders:
    """One end of the line; each rank has its own, on a connection that nothing else can keep busy."""

    def __init__(self, store: Store) -> None:
        self._store = PrefixStore("orders", store.clone())  # type: ignore[attr-defined]
        self._store.set_timeout(timedelta(seconds=_STORE_SECONDS))
        self._lock = threading.Lock()
        self._number = 0
        self._kept: list[int] = []
        self._is_last_collective = False

    def give(self, text: str, *, is_collective: bool) -> None:
        """To all others. RuntimeError: the store is gone."""
        with self._lock:
            self._number += 1
            self._store.set(str(self._number), text)
            if self._is_last_collective:
                # All have taken part in it, so nobody has yet to read it or those before it.
                for number in self._kept:
                    self._store.delete_key(str(number))
                self._kept = []
            self._kept.append(self._number)
            self._is_last_collective = is_collective

    def next(self, *, is_ending: Callable[[], bool] = lambda: False) -> str:
        """Wait for the next order. StartupError: rank 0 gives no sign of life, or the store is gone."""
        self._number += 1
        beat, heard = b"", time.monotonic()
        try:
            while not self._store.check([str(self._number)]):
                newest = self._store.get("beat") if self._store.check(["beat"]) else b""
                if newest != beat:
                    beat, heard = newest, time.monotonic()
                limit = MAX_SILENCE_AT_END_SECONDS if is_ending() else MAX_SILENCE_SECONDS
                if time.monotonic() - heard > limit:
                    raise StartupError(f"rank 0 has given no sign of life for {limit:.0f} s")
                time.sleep(_POLL_SECONDS)
            return bytes(self._store.get(str(self._number))).decode()
        except RuntimeError as error:
            raise StartupError(f"rank 0 or torchrun is gone: {str(error).partition(chr(10))[0]}") from error

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Rank 0 gives signs of life meanwhile."""
        over = threading.Event()

        def beat() -> None:
            number = 0
            try:
                while not over.wait(_BEAT_SECONDS if number else 0):
                    number += 1
                    with self._lock:
                        self._store.set("beat", str(number))
            except RuntimeError as error:
                _log.error("torchrun's store is gone", extra={"error": str(error).partition("\n")[0]})

        thread = threading.Thread(target=beat, name="sign of life", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(_STORE_SECONDS)
