"""Which spans are recorded where nobody but the console listens: those of journeys, all of them, and no others."""

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from schemas.ids import JourneyId
from streams.core.telemetry import names, tracing


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(id_generator=tracing.JourneyIdGenerator(), sampler=tracing.JourneysOnly())
    provider.add_span_processor(tracing.InheritJourney())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return exporter


def test_a_journeys_spans_are_recorded_wherever_they_begin(recorded: InMemorySpanExporter) -> None:
    journey = JourneyId.new()
    with tracing.root_span(journey, "glance", {}), tracing.span("below"):
        pass
    with tracing.span("of nobody"):
        with tracing.span("below it"):
            pass
        with tracing.span("send", attributes={names.JOURNEY: journey}):
            handed_on = tracing.current_traceparent()
    with tracing.span("process", journey=journey, parent=handed_on), tracing.span("transaction"):
        pass
    found = recorded.get_finished_spans()
    assert {span.name for span in found} == {"glance", "below", "send", "process", "transaction"}
    assert {(span.attributes or {})[names.JOURNEY] for span in found} == {journey}


def test_a_traceparent_names_the_span_it_was_taken_in(recorded: InMemorySpanExporter) -> None:
    journey = JourneyId.new()
    with tracing.span("send", journey=journey):
        handed_on = tracing.current_traceparent()
    with tracing.span("process", journey=journey, parent=handed_on):
        pass
    send, process = recorded.get_finished_spans()
    assert send.context is not None and process.parent is not None
    assert handed_on == f"00-{send.context.trace_id:032x}-{send.context.span_id:016x}-01"
    assert (process.parent.trace_id, process.parent.span_id) == (send.context.trace_id, send.context.span_id)
    assert send.context.trace_id == journey.uuid.int


@pytest.mark.parametrize("broken", ["", "00-0-0-01", f"00-{'0' * 32}-{'1' * 16}-01", f"01-{'1' * 32}-{'1' * 16}-01"])
def test_what_is_no_traceparent_leaves_the_span_below_its_journey(recorded: InMemorySpanExporter, broken: str) -> None:
    journey = JourneyId.new()
    with tracing.span("process", journey=journey, parent=broken):
        pass
    (process,) = recorded.get_finished_spans()
    assert process.context is not None
    assert process.context.trace_id == journey.uuid.int
