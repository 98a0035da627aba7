"""Loopback ports: free ones, and ones that are kept for a process that is yet to start."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from onlinerlhf.core.errors import StartupError

LOOPBACK = "127.0.0.1"


def free_ports() -> Iterator[int]:
    """Loopback ports nobody listens on, no port twice."""
    taken: set[int] = set()
    while True:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            taken.add(port)
            yield port


@contextmanager
def kept(addresses: Sequence[str]) -> Iterator[None]:
    """The kernel gives these ports to nobody who asks for any free one; who asks for one by its number may listen.

    Each is bound and not listened on, with SO_REUSEADDR, as a gRPC server binds: connections are refused until one
    listens, and again after it. So a port need not be let go of, which would leave a moment in which it is anybody's.
    """
    with ExitStack() as stack:
        for address in addresses:
            host, _, port = address.rpartition(":")
            keeper = stack.enter_context(socket.socket())
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                keeper.bind((host, int(port)))
            except OSError as error:
                raise StartupError(f"cannot keep {address} for a rollout worker: {error.strerror}") from error
        yield
