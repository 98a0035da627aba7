"""Ctrl-C and SIGTERM at a step's end instead of in its middle."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def asked_to_stop(on_signal: Callable[[], None]) -> Iterator[threading.Event]:
    """An event that the first signal sets, after which it calls `on_signal`; a second signal acts as it always did.

    Only a process's main thread hears signals; elsewhere the event stays unset.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        event.set()
        restore()
        # It may have come in the middle of a print, and then there can be no other.
        with suppress(RuntimeError):
            on_signal()

    for number in _SIGNALS:
        signal.signal(number, handle)
    try:
        yield event
    finally:
        restore()
