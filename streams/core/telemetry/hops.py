"""Finished spans of journeys, kept in PostgreSQL for the console and the demo's table.

A span exporter like any other: it runs in the SDK's own thread, in batches, and loses spans rather than slow an event down.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import psycopg
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import StatusCode
from psycopg.types.json import Jsonb

from streams.core.telemetry import names

# One statement for a batch, however large.
_INSERT = """
    INSERT INTO journey_hops
        (span_id, journey_id, parent_span_id, name, role, started_at, duration_us, failed, attributes)
    SELECT * FROM unnest(
        %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::bigint[], %s::boolean[], %s::jsonb[]
    )
    ON CONFLICT DO NOTHING
"""


class HopExporter(SpanExporter):
    """`url` as psycopg takes it. Spans that belong to no journey are left out."""

    def __init__(self, url: str, role: str) -> None:
        self._url = url
        self._role = role
        self._connection: psycopg.Connection | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        rows = [self._row(span) for span in spans if span.attributes and names.JOURNEY in span.attributes]
        if not rows:
            return SpanExportResult.SUCCESS
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(self._url, autocommit=True, connect_timeout=5)
                self._connection.execute("SET synchronous_commit = off")  # telemetry may be lost, and keeps no disk busy
            self._connection.execute(_INSERT, [list(column) for column in zip(*rows, strict=True)])
        except psycopg.Error:
            self.shutdown()
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def _row(self, span: ReadableSpan) -> tuple[object, ...]:
        attributes = dict(span.attributes or {})
        started, ended = span.start_time or 0, span.end_time or 0
        return (
            f"{span.context.span_id:016x}",
            attributes.pop(names.JOURNEY),
            f"{span.parent.span_id:016x}" if span.parent else None,
            span.name,
            self._role,
            datetime.fromtimestamp(started / 1e9, UTC),
            (ended - started) // 1000,
            span.status.status_code is StatusCode.ERROR,
            Jsonb(attributes),
        )

    def shutdown(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
