"""Spans of the rooms of one process, kept in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from onlinerlhf.runtime import tracing


@dataclass(frozen=True, slots=True)
class Spans:
    """What has been exported so far."""

    exporter: InMemorySpanExporter

    def named(self, name: str) -> list[ReadableSpan]:
        """In the order in which they ended."""
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    async def all(self, *names: str) -> bool:
        """Whether there is one of each."""
        return all(self.named(name) for name in names)


@contextmanager
def tracing_in_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    """Exports every 20 ms."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setattr(tracing, "_tracer", None)
    exporter = InMemorySpanExporter()
    assert tracing.setup("test", run_id="test", exporter=exporter)
    try:
        yield Spans(exporter)
    finally:
        tracing._tracer.span_processor.shutdown()  # type: ignore[union-attr]


def id_of(span: ReadableSpan) -> str:
    """Of the trace and the span, as in a traceparent."""
    return f"{span.context.trace_id:032x}-{span.context.span_id:016x}"


def parent_of(span: ReadableSpan) -> str:
    """The same of its parent; empty for the first of a trace."""
    parent = span.parent
    return "" if parent is None else f"{parent.trace_id:032x}-{parent.span_id:016x}"


def ids_in(traceparent: str) -> str:
    """Without version and flags."""
    return traceparent[3:52]
