"""Finished spans of journeys, kept in PostgreSQL for the console and the demo's table.

A span exporter like any other: it runs in the SDK's own thread, in batches, and loses spans rather than slow an event down.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import psycopg
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import StatusCode

from streams.core.telemetry import names

# One statement for a batch, however large; one document, because to write nine lists costs the driver five times as much.
_INSERT = """
    INSERT INTO journey_hops
        (span_id, journey_id, parent_span_id, name, role, started_at, duration_us, failed, attributes)
    SELECT * FROM json_to_recordset(%s::json) AS hop (
        span_id text, journey_id text, parent_span_id text, name text, role text, started_at timestamptz, duration_us bigint,
        failed boolean, attributes jsonb
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
            self._connection.execute(_INSERT, [json.dumps(rows)])
        except psycopg.Error:
            self.shutdown()
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def _row(self, span: ReadableSpan) -> dict[str, object]:
        attributes = dict(span.attributes or {})
        started, ended = span.start_time or 0, span.end_time or 0
        return {
            "span_id": f"{span.context.span_id:016x}",
            "journey_id": attributes.pop(names.JOURNEY),
            "parent_span_id": f"{span.parent.span_id:016x}" if span.parent else None,
            "name": span.name,
            "role": self._role,
            "started_at": datetime.fromtimestamp(started / 1e9, UTC).isoformat(),
            "duration_us": (ended - started) // 1000,
            "failed": span.status.status_code is StatusCode.ERROR,
            "attributes": attributes,
        }

    def shutdown(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
