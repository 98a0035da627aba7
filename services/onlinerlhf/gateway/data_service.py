"""DataService: decode, authenticate, call, encode."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

import grpc

from onlinerlhf.core.errors import PermissionDenied
from onlinerlhf.gateway.access.callers import ApiKey, Scope
from onlinerlhf.gateway.requests import form
from onlinerlhf.gateway.rights.erasure import Erasure, ErasureReceipt, Verification
from onlinerlhf.gateway.service import credential_of
from onlinerlhf.v1 import data_pb2, data_pb2_grpc

_UserRequest = data_pb2.EraseUserRequest | data_pb2.VerifyErasureRequest | data_pb2.ExportUserRequest


class Authenticate(Protocol):
    """Whose key a credential is. Raises Unauthenticated, PermissionDenied, Unavailable."""

    async def __call__(self, credential: str | None, *, scope: Scope) -> ApiKey: ...


class Export(Protocol):
    """Everything held of a user, as pairs of kind and JSON."""

    def __call__(self, organisation: str, user_id: str) -> AsyncIterator[tuple[str, str]]: ...


class DataServicer(data_pb2_grpc.DataServiceServicer):
    """What operators answer data subjects with."""

    def __init__(self, erasure: Erasure, export: Export, authenticate: Authenticate) -> None:
        self._erasure = erasure
        self._export = export
        self._authenticate = authenticate

    async def EraseUser(
        self,
        request: data_pb2.EraseUserRequest,
        context: grpc.aio.ServicerContext[data_pb2.EraseUserRequest, data_pb2.EraseUserResponse],
    ) -> data_pb2.EraseUserResponse:
        """Everywhere."""
        await self._allow(request, context)
        receipt = await self._erasure.erase(request.organisation, request.user_id)
        return data_pb2.EraseUserResponse(receipt=_receipt(receipt))

    async def VerifyErasure(
        self,
        request: data_pb2.VerifyErasureRequest,
        context: grpc.aio.ServicerContext[data_pb2.VerifyErasureRequest, data_pb2.VerifyErasureResponse],
    ) -> data_pb2.VerifyErasureResponse:
        """Look anew."""
        await self._allow(request, context)
        return _verification(await self._erasure.verify(request.organisation, request.user_id))

    async def ExportUser(
        self,
        request: data_pb2.ExportUserRequest,
        context: grpc.aio.ServicerContext[data_pb2.ExportUserRequest, data_pb2.ExportUserResponse],
    ) -> AsyncIterator[data_pb2.ExportUserResponse]:
        """A message an object."""
        await self._allow(request, context)
        async for kind, text in self._export(request.organisation, request.user_id):
            yield data_pb2.ExportUserResponse(kind=kind, json=text)

    async def _allow(self, request: _UserRequest, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        key = await self._authenticate(credential_of(context), scope=Scope.ADMIN)
        form.name(request.user_id, what="user_id")
        if request.organisation:
            form.name(request.organisation, what="organisation")
        if key.organisation and key.organisation != request.organisation:
            raise PermissionDenied("this key administers users of its own organisation only")


def _receipt(receipt: ErasureReceipt) -> data_pb2.ErasureReceipt:
    return data_pb2.ErasureReceipt(
        receipt_id=receipt.receipt_id,
        erased_at_seconds=receipt.erased_at_seconds,
        num_removed=receipt.num_removed,
        num_samples_dropped=receipt.num_samples_dropped,
        policy_versions=receipt.policy_versions,
        num_samples_in_training=receipt.num_samples_in_training,
    )


def _verification(found: Verification) -> data_pb2.VerifyErasureResponse:
    return data_pb2.VerifyErasureResponse(
        clean=not found.num_left,
        num_left=found.num_left,
        num_keys_scanned=found.num_keys_scanned,
        policy_versions=found.policy_versions,
    )
