"""Around every handler: errors become status codes, a call without a deadline gets one, and each call is measured."""

import asyncio
import contextlib
import inspect
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc

from onlinerlhf.core.errors import OnlineRLHFError
from onlinerlhf.runtime import metrics
from onlinerlhf.runtime.statuses import REASON_KEY, status_of

log = logging.getLogger(__name__)

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
        return make(
            wrap(method.rpartition("/")[2], inner),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _unary(self, method: str, inner: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        async def call(request: Any, context: Any) -> Any:
            async with self._guard(method, context):
                return await inner(request, context)

        return call

    def _streaming(self, method: str, inner: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Awaitable[None]]:
        async def call(request: Any, context: Any) -> None:
            async with self._guard(method, context):
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
        except OnlineRLHFError as error:
            code, reason = status_of(error)
            await context.abort(code, str(error), ((REASON_KEY, reason),))
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
    log.error("call failed", extra={"method": method, "error_id": error_id}, exc_info=error)
    message = f"internal error {error_id}"
    await context.abort(grpc.StatusCode.INTERNAL, message, ((REASON_KEY, "internal"),))


def _code_set(context: Any) -> grpc.StatusCode | None:
    """What the handler set or aborted with."""
    code = context.code()
    if isinstance(code, grpc.StatusCode):
        return code
    return next((known for known in grpc.StatusCode if known.value[0] == code), None)
