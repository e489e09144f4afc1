"""Tracing. A journey's id is its trace's id: any hop, at any time, finds the trace without being told (docs/adr/0003)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from schemas.ids import JourneyId
from streams.core.telemetry import names

_propagator = TraceContextTextMapPropagator()
_root: ContextVar[JourneyId | None] = ContextVar("journey whose root span is being made", default=None)

Attribute = str | int | float | bool


def tracer() -> trace.Tracer:
    return trace.get_tracer("augenblick")


def trace_id(journey: JourneyId) -> str:
    """32 hexadecimal digits."""
    return journey.uuid.hex


def _root_ids(journey: JourneyId) -> tuple[int, int]:
    value = journey.uuid.int
    return value, (value & (2**64 - 1)) or 1


class JourneyIdGenerator(IdGenerator):
    """Random ids, but for a journey's first span: its ids follow from the journey's."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()

    def generate_trace_id(self) -> int:
        journey = _root.get()
        return _root_ids(journey)[0] if journey else self._random.generate_trace_id()

    def generate_span_id(self) -> int:
        journey = _root.get()
        return _root_ids(journey)[1] if journey else self._random.generate_span_id()


class InheritJourney(SpanProcessor):
    """A span below a journey's span belongs to the journey, also one that a library makes."""

    def on_start(self, span: SdkSpan, parent_context: otel_context.Context | None = None) -> None:
        parent = trace.get_current_span(parent_context)
        if isinstance(parent, ReadableSpan) and (journey := (parent.attributes or {}).get(names.JOURNEY)):
            span.set_attribute(names.JOURNEY, journey)


@contextmanager
def root_span(journey: JourneyId, name: str, attributes: Mapping[str, Attribute]) -> Iterator[Span]:
    """The first span of a journey."""
    token = _root.set(journey)
    try:
        started = tracer().start_span(
            name, context=otel_context.Context(), kind=SpanKind.SERVER, attributes={names.JOURNEY: str(journey)}
        )
    finally:
        _root.reset(token)
    with _current(started):
        annotate(started, attributes)
        yield started


@contextmanager
def span(
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    journey: JourneyId | None = None,
    parent: str | None = None,
    attributes: Mapping[str, Attribute] | None = None,
) -> Iterator[Span]:
    """A span of the current trace; or, with `parent` (a traceparent) or `journey`, of that one. An exception is recorded by
    its type alone, for messages may quote what must not be kept."""
    where = None
    if parent is not None:
        where = _propagator.extract({"traceparent": parent}, context=otel_context.Context())
    if journey is not None and not (where and trace.get_current_span(where).get_span_context().is_valid):
        where = journey_context(journey)
    started = tracer().start_span(name, context=where, kind=kind)
    with _current(started):
        annotate(started, {**(attributes or {}), **({names.JOURNEY: str(journey)} if journey else {})})
        yield started


@contextmanager
def _current(started: Span) -> Iterator[None]:
    with trace.use_span(started, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield
        except BaseException as error:
            started.set_attribute(names.ERROR_TYPE, type(error).__qualname__)
            started.set_status(Status(StatusCode.ERROR, type(error).__qualname__))
            raise


def annotate(target: Span, attributes: Mapping[str, Attribute]) -> None:
    """Set attributes, of known names only."""
    if unknown := attributes.keys() - names.ATTRIBUTES:
        raise ValueError(f"not an attribute of ours: {', '.join(sorted(unknown))}; add it to telemetry/names.py")
    target.set_attributes(dict(attributes))


def fail(target: Span, reason: str) -> None:
    """Mark a span failed with a code, where no exception leaves it."""
    target.set_attribute(names.ERROR_TYPE, reason)
    target.set_status(Status(StatusCode.ERROR, reason))


def journey_context(journey: JourneyId) -> otel_context.Context:
    """A context below the journey's root span, wherever that was made."""
    trace_number, span_number = _root_ids(journey)
    root = SpanContext(trace_number, span_number, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return trace.set_span_in_context(NonRecordingSpan(root), otel_context.Context())


def current_traceparent() -> str | None:
    """The W3C traceparent of the current span, for headers and rows."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent")
