"""Tracing. A journey's id is its trace's id: any hop, at any time, finds the trace without being told (docs/adr/0003)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.util.types import Attributes

from schemas.ids import JourneyId
from streams.core.telemetry import names

# Of W3C Trace Context, version 00: all that is ever in our headers and rows.
_TRACEPARENT = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")

_NOWHERE = otel_context.Context()
_root: ContextVar[JourneyId | None] = ContextVar("journey whose root span is being made", default=None)

Attribute = str | int | float | bool


_tracers: dict[int, tuple[trace.TracerProvider, trace.Tracer]] = {}


def tracer() -> trace.Tracer:
    """Of the provider that is set now. Kept, for making one costs more than a span."""
    provider = trace.get_tracer_provider()
    found = _tracers.get(id(provider))
    if found is None or found[0] is not provider:
        found = _tracers[id(provider)] = provider, provider.get_tracer("augenblick")
    return found[1]


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


class JourneysOnly(Sampler):
    """Spans that say which journey they belong to, and those below one that is recorded."""

    def should_sample(
        self,
        parent_context: otel_context.Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        parent = trace.get_current_span(parent_context).get_span_context()
        wanted = (attributes is not None and names.JOURNEY in attributes) or (parent.is_valid and parent.trace_flags.sampled)
        return SamplingResult(Decision.RECORD_AND_SAMPLE if wanted else Decision.DROP, attributes if wanted else None)

    def get_description(self) -> str:
        return "JourneysOnly"


class InheritJourney(SpanProcessor):
    """A span below a journey's span belongs to the journey, also one that a library makes."""

    def on_start(self, span: SdkSpan, parent_context: otel_context.Context | None = None) -> None:
        if span.attributes and names.JOURNEY in span.attributes:
            return
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
    where = _parent_context(parent) if parent is not None else None
    if journey is not None:
        where = where or journey_context(journey)
        attributes = {**(attributes or {}), names.JOURNEY: str(journey)}
    if attributes:
        _must_be_known(attributes)
    with _current(tracer().start_span(name, context=where, kind=kind, attributes=attributes)) as started:
        yield started


@contextmanager
def _current(started: Span) -> Iterator[Span]:
    token = otel_context.attach(trace.set_span_in_context(started))
    try:
        yield started
    except BaseException as error:
        started.set_attribute(names.ERROR_TYPE, type(error).__qualname__)
        started.set_status(Status(StatusCode.ERROR, type(error).__qualname__))
        raise
    finally:
        otel_context.detach(token)
        started.end()


def annotate(target: Span, attributes: Mapping[str, Attribute]) -> None:
    """Set attributes, of known names only."""
    _must_be_known(attributes)
    target.set_attributes(dict(attributes))


def _must_be_known(attributes: Mapping[str, Attribute]) -> None:
    if unknown := attributes.keys() - names.ATTRIBUTES:
        raise ValueError(f"not an attribute of ours: {', '.join(sorted(unknown))}; add it to telemetry/names.py")


def fail(target: Span, reason: str) -> None:
    """Mark a span failed with a code, where no exception leaves it."""
    target.set_attribute(names.ERROR_TYPE, reason)
    target.set_status(Status(StatusCode.ERROR, reason))


def journey_context(journey: JourneyId) -> otel_context.Context:
    """A context below the journey's root span, wherever that was made."""
    trace_number, span_number = _root_ids(journey)
    return _remote(trace_number, span_number, TraceFlags.SAMPLED)


def _parent_context(traceparent: str) -> otel_context.Context | None:
    """None where it is none."""
    parsed = _TRACEPARENT.fullmatch(traceparent)
    if parsed is None:
        return None
    trace_number, span_number, flags = (int(part, 16) for part in parsed.groups())
    return _remote(trace_number, span_number, flags) if trace_number and span_number else None


def _remote(trace_number: int, span_number: int, flags: int) -> otel_context.Context:
    span_context = SpanContext(trace_number, span_number, is_remote=True, trace_flags=TraceFlags(flags))
    return trace.set_span_in_context(NonRecordingSpan(span_context), _NOWHERE)


def current_traceparent() -> str | None:
    """The W3C traceparent of the current span, for headers and rows."""
    current = trace.get_current_span().get_span_context()
    if not current.is_valid:
        return None
    return f"00-{current.trace_id:032x}-{current.span_id:016x}-{current.trace_flags:02x}"
