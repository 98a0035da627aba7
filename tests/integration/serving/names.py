"""A name server on loopback for one name, as a headless Service has one: an address for each replica that is ready."""

import asyncio
import ipaddress
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

_HEADER = struct.Struct("!6H")
_ANSWER = struct.Struct("!HHHIH4s")
_A = 1
_POINTER_TO_QUESTION = 0xC000 | _HEADER.size


class Names(asyncio.DatagramProtocol):
    """Answers every question for addresses with `addresses`, and every other one with nothing (RFC 1035)."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.num_questions = 0
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._transport is not None
        return int(self._transport.get_extra_info("sockname")[1])

    def target(self, port: int) -> str:
        """What to open a channel to: the name, at a port, as this server knows it."""
        return f"dns://127.0.0.1:{self.port}/rollout.test:{port}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        assert self._transport is not None
        query_id, *_ = _HEADER.unpack_from(data)
        question = data[_HEADER.size : data.index(b"\0", _HEADER.size) + 5]
        (kind,) = struct.unpack_from("!H", question, len(question) - 4)
        found = self.addresses if kind == _A else []
        self.num_questions += kind == _A
        answers = b"".join(
            _ANSWER.pack(_POINTER_TO_QUESTION, _A, 1, 5, 4, ipaddress.IPv4Address(each).packed) for each in found
        )
        # A response, recursion desired and available.
        header = _HEADER.pack(query_id, 0x8180, 1, len(found), 0, 0)
        self._transport.sendto(header + question + answers, address)


@asynccontextmanager
async def name_server(*addresses: str) -> AsyncIterator[Names]:
    """One that answers with these addresses until told otherwise."""
    transport, names = await asyncio.get_running_loop().create_datagram_endpoint(Names, local_addr=("127.0.0.1", 0))
    names.addresses = list(addresses)
    try:
        yield names
    finally:
        transport.close()
