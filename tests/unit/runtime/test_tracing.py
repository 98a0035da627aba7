"""Spans: whose child each is, what they say, and that nothing depends on a collector."""

from collections.abc import Iterator

import pytest

from integration.spans import Spans, id_of, ids_in, parent_of, tracing_in_memory
from onlinerlhf.runtime import tracing

PARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    with tracing_in_memory(monkeypatch) as found:
        yield found
    # What was left over was exported at the end.
    assert not found.named("never ended")


def flush() -> None:
    tracing._tracer.span_processor.force_flush()  # type: ignore[union-attr]


def test_a_span_is_the_child_of_the_traceparent_it_is_given_and_hands_on_its_own(spans: Spans) -> None:
    with tracing.span("outer", parent=PARENT) as outer, tracing.span("inner", parent=outer.traceparent):
        pass
    flush()
    [seen], [inner] = spans.named("outer"), spans.named("inner")
    assert parent_of(seen) == ids_in(PARENT)
    assert id_of(seen) == ids_in(outer.traceparent) == parent_of(inner)
    assert inner.context.trace_id == int("ab" * 16, 16)


@pytest.mark.parametrize("parent", ["", "what is my secret?", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "00-zz-1-01"])
def test_without_a_readable_parent_a_trace_begins_whatever_surrounds_it(spans: Spans, parent: str) -> None:
    with tracing.span("around"), tracing.span("alone", parent=parent):
        pass
    flush()
    [around], [alone] = spans.named("around"), spans.named("alone")
    assert parent_of(alone) == ""
    assert alone.context.trace_id != around.context.trace_id


def test_a_span_links_to_as_many_others_as_can_be_read_up_to_a_bound(spans: Spans) -> None:
    with tracing.span("few", links=[PARENT, "", "unreadable"]), tracing.span("many", links=[PARENT] * 1_000):
        pass
    flush()
    [few], [many] = spans.named("few"), spans.named("many")
    assert [f"{link.context.trace_id:x}" for link in few.links] == ["ab" * 16]
    assert len(many.links) == 128


def test_of_an_exception_only_the_type_is_recorded(spans: Spans) -> None:
    with pytest.raises(KeyError), tracing.span("failing"):
        raise KeyError("what is my secret?")
    flush()
    [failed] = spans.named("failing")
    assert (failed.status.is_ok, failed.status.description) == (False, "KeyError")
    assert failed.events == () and "secret" not in failed.to_json()


def test_the_room_and_the_run_are_named(spans: Spans) -> None:
    tracing.begin("one", attributes={"version": 3}).end(attributes={"num_tokens": 2})
    flush()
    [one] = spans.named("one")
    assert one.resource.attributes["service.name"] == "onlinerlhf-test"
    assert dict(one.attributes or {}) == {"version": 3, "num_tokens": 2}


def test_without_a_collector_a_span_is_nothing_and_hands_its_parent_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.setattr(tracing, "_tracer", None)
    assert not tracing.setup("test", run_id="test")
    with tracing.span("one", parent=PARENT, links=[PARENT], attributes={"a": 1}) as current:
        assert current.traceparent == PARENT
    current.end(error="twice does no harm")
    with tracing.span("two") as first:
        assert first.traceparent == ""


@pytest.mark.parametrize(
    "sent", ["", "x", PARENT + " ", PARENT.upper(), PARENT + "-01", "00-" + "x" * 10_000, f"{PARENT}\n"]
)
def test_what_is_no_traceparent_is_not_taken_for_one(sent: str) -> None:
    assert tracing.checked(PARENT) == PARENT
    assert tracing.checked(sent) == ""
