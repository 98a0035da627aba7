"""`onlinerlhf data erase|verify|user`: asks the gateway, with a key of scope admin."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.json_format import MessageToDict

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.local import endpoints
from onlinerlhf.local.credentials import admin_key
from onlinerlhf.local.probes import fresh_channel
from onlinerlhf.runtime.channels import map_error
from onlinerlhf.v1 import data_pb2, data_pb2_grpc

CALL_SECONDS = 300.0
T = TypeVar("T")
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which gateway."""

    home: Path
    run_dir: Path | None = None
    address: str | None = None
    """host:port; unset: of the platform that is up here."""
    ca: Path | None = None
    """PEM file of whom to trust, where the gateway speaks TLS."""
    server_name: str | None = None
    """Name in its certificate, where `address` goes by another."""

    def authorities(self) -> bytes | None:
        """What the file holds. Raises ConfigError."""
        try:
            return None if self.ca is None else self.ca.read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read {self.ca}: {error.strerror}") from None


def erase(place: Place, *, organisation: str, user_id: str) -> None:
    """Erase a user everywhere, and print the receipt."""
    request = data_pb2.EraseUserRequest(organisation=organisation, user_id=user_id)

    async def call(stub: Any, metadata: Metadata) -> data_pb2.EraseUserResponse:
        return await stub.EraseUser(request, metadata=metadata, timeout=CALL_SECONDS)  # type: ignore[no-any-return]

    _print(_as_dict(_ask(place, "erasing a user", call).receipt))


def verify(place: Place, *, organisation: str, user_id: str) -> bool:
    """Look through every store anew, and print what was found. False where something is left."""
    request = data_pb2.VerifyErasureRequest(organisation=organisation, user_id=user_id)

    async def call(stub: Any, metadata: Metadata) -> data_pb2.VerifyErasureResponse:
        return await stub.VerifyErasure(request, metadata=metadata, timeout=CALL_SECONDS)  # type: ignore[no-any-return]

    response = _ask(place, "verifying an erasure", call)
    _print(_as_dict(response))
    return response.clean


def export_user(place: Place, *, organisation: str, user_id: str) -> None:
    """Print everything held of a user, a JSON object a line."""
    request = data_pb2.ExportUserRequest(organisation=organisation, user_id=user_id)

    async def call(stub: Any, metadata: Metadata) -> None:
        async for piece in stub.ExportUser(request, metadata=metadata, timeout=CALL_SECONDS):
            print(json.dumps({"kind": piece.kind} | json.loads(piece.json), ensure_ascii=False))

    _ask(place, "exporting a user", call)


def _ask(place: Place, what: str, call: Callable[[Any, Metadata], Awaitable[T]]) -> T:
    address = place.address or endpoints.find(place.home, place.run_dir).gateway
    key, ca = admin_key(place.home, place.run_dir), place.authorities()

    async def ask() -> T:
        async with fresh_channel(address, ca=ca, server_name=place.server_name) as channel:
            try:
                return await call(data_pb2_grpc.DataServiceStub(channel), (("authorization", f"Bearer {key}"),))
            except grpc.aio.AioRpcError as error:
                raise map_error(error, what) from None

    return asyncio.run(ask())


def _as_dict(message: Any) -> dict[str, Any]:
    record: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {name: _numbers(value) for name, value in record.items()}


def _numbers(value: Any) -> Any:
    """Protobuf's JSON has 64-bit numbers as strings; here they are counts and versions."""
    if isinstance(value, Mapping):
        return {name: _numbers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_numbers(each) for each in value]
    return int(value) if isinstance(value, str) and value.isdigit() else value


def _print(record: Mapping[str, Any]) -> None:
    print(json.dumps(record, indent=2))
