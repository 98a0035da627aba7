"""OpenTelemetry spans along a sample's way, where OTEL_EXPORTER_OTLP_ENDPOINT names a collector; otherwise none.

gateway.answer ─► rollout.generate                         one trace a request
gateway.submission ─► rollout.sample ─► reward.score       the trace context travels in the prompt's record
learner.step                                               a trace of its own, linked to those of its samples

A span's parent is always given, as a W3C traceparent, and never taken from the surroundings: work changes hands through
Redis and between tasks. Attributes are ids and numbers, never text.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from onlinerlhf.core.errors import StartupError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
EXPORT_TIMEOUT: Final = "OTEL_EXPORTER_OTLP_TIMEOUT"
EXPORT_SECONDS: Final = 2
"""Where EXPORT_TIMEOUT says nothing else: a collector that is away is waited for at the end of a process, too."""
MAX_LINKS: Final = 128
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

Attributes = Mapping[str, str | int | float]

_tracer: "Tracer | None" = None


class OpenSpan:
    """A span that has begun. `traceparent` is handed on to whoever works on the same request next."""

    def __init__(self, inner: "Span | None", traceparent: str) -> None:
        self._inner = inner
        self.traceparent = traceparent

    def end(self, *, error: str = "", attributes: Attributes | None = None) -> None:
        """It is over; `error` is the type of what went wrong."""
        if self._inner is None:
            return
        from opentelemetry.trace import Status, StatusCode

        self._inner.set_attributes(dict(attributes or {}))
        if error:
            self._inner.set_status(Status(StatusCode.ERROR, error))
        self._inner.end()


def setup(room: str, *, run_id: str, exporter: "SpanExporter | None" = None) -> bool:
    """Export this process's spans if an endpoint (or an exporter) is given. Whether one is.

    Raises StartupError where an endpoint is set and the packages are not installed.
    """
    global _tracer
    if exporter is None and not os.environ.get(ENDPOINT):
        return False
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        missing = f"{ENDPOINT} is set, but {error.name} is not installed: pip install 'onlinerlhf[tracing]'"
        raise StartupError(missing) from None
    resource = Resource.create({"service.name": f"onlinerlhf-{room}", "onlinerlhf.run": run_id})
    provider = TracerProvider(resource=resource)
    timeout_seconds = None if os.environ.get(EXPORT_TIMEOUT) else EXPORT_SECONDS
    provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter(timeout=timeout_seconds)))
    _tracer = provider.get_tracer("onlinerlhf")
    return True


def checked(traceparent: str) -> str:
    """What a client sent as its trace context; empty where it is none. It is kept with the prompt and sent on."""
    return traceparent if _TRACEPARENT.fullmatch(traceparent) else ""


def begin(name: str, *, parent: str = "", links: Iterable[str] = (), attributes: Attributes | None = None) -> OpenSpan:
    """Begin a span; without a collector it is nothing and hands its parent on."""
    if _tracer is None:
        return OpenSpan(None, parent)
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, get_current_span

    linked = (get_current_span(_context(each)).get_span_context() for each in list(links)[:MAX_LINKS] if each)
    inner = _tracer.start_span(
        name,
        context=_context(parent) if parent else Context(),
        links=[Link(context) for context in linked if context.is_valid],
        attributes=dict(attributes or {}),
    )
    known = inner.get_span_context()
    return OpenSpan(inner, f"00-{known.trace_id:032x}-{known.span_id:016x}-{known.trace_flags:02x}")


@contextmanager
def span(
    name: str, *, parent: str = "", links: Iterable[str] = (), attributes: Attributes | None = None
) -> Iterator[OpenSpan]:
    """A span around a block. Of an exception only the type is recorded: its message may quote a request."""
    current = begin(name, parent=parent, links=links, attributes=attributes)
    try:
        yield current
    except BaseException as error:
        current.end(error=type(error).__name__)
        raise
    current.end()


def _context(traceparent: str) -> "Context":
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent})
