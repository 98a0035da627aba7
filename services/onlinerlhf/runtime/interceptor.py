"""Around every handler: errors become status codes, a call without a deadline gets one, and each call is measured.

Messages are decoded here too, since grpc calls what cannot be decoded a fault of the server.
"""

import asyncio
import contextlib
import inspect
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from onlinerlhf.core.errors import MalformedRecord, OnlineRLHFError
from onlinerlhf.runtime import logs, metrics
from onlinerlhf.runtime.statuses import REASON_KEY, status_of, trailing_metadata

log = logging.getLogger(__name__)

_Decode = Callable[[bytes], Any]

_LIBRARY_SERVICES: Final = ("/grpc.health.", "/grpc.reflection.")
"""They answer with status codes themselves, and a health watch has no end."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps unary and streaming handlers alike; handlers are coroutines or async generators."""

    def __init__(self, *, max_call_seconds: float) -> None:
        self._max_call_seconds = max_call_seconds

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Called by grpc once a call."""
        handler: Any = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or method.startswith(_LIBRARY_SERVICES):
            return handler
        wrap = self._streaming if handler.response_streaming else self._unary
        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[handler.request_streaming, handler.response_streaming]
        names = {(False, False): "unary_unary", (False, True): "unary_stream", (True, False): "stream_unary"}
        inner = getattr(handler, names.get((handler.request_streaming, handler.response_streaming), "stream_stream"))
        decode = partial(_decoded_each if handler.request_streaming else _decoded, handler.request_deserializer)
        return make(wrap(method.rpartition("/")[2], inner, decode), response_serializer=handler.response_serializer)

    def _unary(
        self, method: str, inner: Callable[[Any, Any], Awaitable[Any]], decode: Callable[[Any], Any]
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        async def call(raw: Any, context: Any) -> Any:
            async with self._guard(method, context):
                return await inner(decode(raw), context)

        return call

    def _streaming(
        self, method: str, inner: Callable[[Any, Any], Any], decode: Callable[[Any], Any]
    ) -> Callable[[Any, Any], Awaitable[None]]:
        async def call(raw: Any, context: Any) -> None:
            async with self._guard(method, context):
                request = decode(raw)
                if not inspect.isasyncgenfunction(inner):
                    await inner(request, context)
                    return
                # Written here rather than yielded, so that the deadline also covers a client that does not read.
                async with contextlib.aclosing(inner(request, context)) as responses:
                    async for response in responses:
                        await context.write(response)

        return call

    @contextlib.asynccontextmanager
    async def _guard(self, method: str, context: Any) -> AsyncIterator[None]:
        started = time.monotonic()
        limit_seconds = self._max_call_seconds if context.time_remaining() is None else None
        code = grpc.StatusCode.OK
        try:
            async with asyncio.timeout(limit_seconds) as limit:
                yield
            code = _code_set(context) or code
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        except grpc.aio.AbortError:
            code = _code_set(context) or grpc.StatusCode.UNKNOWN
            raise
        except grpc.aio.InternalError:
            # What grpc raises where it is to send and the client is gone.
            code = grpc.StatusCode.CANCELLED
            raise
        except OnlineRLHFError as error:
            code, _ = status_of(error)
            await context.abort(code, str(error), trailing_metadata(error))
        except Exception as error:  # noqa: BLE001 - the edge of every handler
            if limit.expired():
                code = grpc.StatusCode.DEADLINE_EXCEEDED
                await context.abort(code, f"{method} took longer than {limit_seconds:g} s, and brought no deadline")
            code = grpc.StatusCode.INTERNAL
            await _abort_unexpected(method, context, error)
        finally:
            metrics.RPC_SECONDS.labels(method, code.name).observe(time.monotonic() - started)


async def _abort_unexpected(method: str, context: Any, error: Exception) -> None:
    """The client gets an id to ask about; what happened is for the log alone."""
    error_id = uuid.uuid4().hex[:12]
    # A call's error may quote the call, whatever its class.
    told = logs.describe_exception(error, safe=(OnlineRLHFError,))
    log.error("call failed", extra={"method": method, "error_id": error_id, "exception": told})
    message = f"internal error {error_id}"
    await context.abort(grpc.StatusCode.INTERNAL, message, ((REASON_KEY, "internal"),))


def _decoded(deserialize: _Decode, raw: bytes) -> Any:
    try:
        return deserialize(raw)
    except DecodeError:
        raise MalformedRecord("the message cannot be decoded as what this method takes") from None


async def _decoded_each(deserialize: _Decode, raw: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for each in raw:
        yield _decoded(deserialize, each)


def _code_set(context: Any) -> grpc.StatusCode | None:
    """What the handler set or aborted with."""
    code = context.code()
    if isinstance(code, grpc.StatusCode):
        return code
    return next((known for known in grpc.StatusCode if known.value[0] == code), None)
