"""Starting telemetry in a process. Where spans and metrics go is chosen by OpenTelemetry's own variables:

OTEL_TRACES_EXPORTER=zipkin with OTEL_EXPORTER_ZIPKIN_ENDPOINT, or =otlp with OTEL_EXPORTER_OTLP_ENDPOINT, or none;
OTEL_METRICS_EXPORTER=otlp likewise. Journeys' spans go to the database as well, for the console.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from opentelemetry import metrics, trace
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor, RequestInfo
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from schemas.errors import Misconfigured
from streams.core.database import parse_url
from streams.core.settings import Settings, version
from streams.core.telemetry.hops import HopExporter
from streams.core.telemetry.tracing import InheritJourney, JourneyIdGenerator, JourneysOnly

# Spans are shown while people wait for them: half a second is soon enough, and still a batch.
_DELAY_MS = 500


@contextmanager
def telemetry(settings: Settings, role: str) -> Iterator[None]:
    """For the life of a process; flushes at the end."""
    resource = Resource.create({"service.name": f"augenblick-{role}", "service.version": version()})
    exporters = list(_span_exporters(settings, role))
    # What belongs to no journey is for operators' own collectors alone: without one it is not even begun.
    for_journeys_only = all(isinstance(exporter, HopExporter) for exporter in exporters)
    sampler = JourneysOnly() if for_journeys_only else None
    tracers = TracerProvider(resource=resource, id_generator=JourneyIdGenerator(), sampler=sampler)
    tracers.add_span_processor(InheritJourney())
    for exporter in exporters:
        tracers.add_span_processor(_batching(exporter))
    trace.set_tracer_provider(tracers)
    HTTPXClientInstrumentor().instrument(async_request_hook=_name_the_server_only)
    meters = MeterProvider(resource=resource, metric_readers=list(_metric_readers()))
    metrics.set_meter_provider(meters)
    try:
        yield
    finally:
        HTTPXClientInstrumentor().uninstrument()
        tracers.shutdown()
        meters.shutdown()


async def _name_the_server_only(span: trace.Span, request: RequestInfo) -> None:
    """Paths and queries of merchants' addresses and of providers' downloads hold keys now and then."""
    attributes = span.attributes if isinstance(span, ReadableSpan) else None
    for name in ("http.url", "url.full"):
        if attributes and name in attributes:
            address = urlsplit(str(attributes[name]))
            span.set_attribute(name, f"{address.scheme}://{address.hostname}/")


def _batching(exporter: SpanExporter) -> SpanProcessor:
    return BatchSpanProcessor(exporter, schedule_delay_millis=_DELAY_MS)


def _span_exporters(settings: Settings, role: str) -> Iterator[SpanExporter]:
    if settings.database_url:
        url = parse_url(settings.database_url.get_secret_value()).set(drivername="postgresql")
        yield HopExporter(url.render_as_string(hide_password=False), role)
    chosen = os.environ.get("OTEL_TRACES_EXPORTER") or ("otlp" if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") else "none")
    if chosen == "zipkin":
        from opentelemetry.exporter.zipkin.json import ZipkinExporter

        yield ZipkinExporter()
    elif chosen == "otlp":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        yield OTLPSpanExporter()
    elif chosen != "none":
        raise Misconfigured(f"OTEL_TRACES_EXPORTER is {chosen!r}: choose zipkin, otlp or none.")


def _metric_readers() -> Iterator[MetricReader]:
    chosen = os.environ.get("OTEL_METRICS_EXPORTER") or ("otlp" if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") else "none")
    if chosen == "otlp":
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        yield PeriodicExportingMetricReader(OTLPMetricExporter())
    elif chosen != "none":
        raise Misconfigured(f"OTEL_METRICS_EXPORTER is {chosen!r}: choose otlp or none.")
