"""What spans must not say, those of SDKs' calls too; of our own client see tests/unit/connectors/test_http.py."""

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from connectors.http import direct_client
from streams.core.telemetry.setup import _name_the_server_only


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_spans_of_calls_name_the_server_and_nothing_that_could_be_a_key(server: str) -> None:
    exporter = InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = HTTPXClientInstrumentor()
    instrumentor.instrument(tracer_provider=tracers, async_request_hook=_name_the_server_only)
    try:
        async with direct_client() as client:
            answer = await asyncio.wait_for(client.request("GET", f"{server}/hooks/T0KEN-IN-PATH?token=T0KEN-IN-QUERY"), 10)
    finally:
        instrumentor.uninstrument()
    assert answer.status_code == 200
    (span,) = exporter.get_finished_spans()
    assert "127.0.0.1" in str(dict(span.attributes or {}))
    assert "T0KEN" not in span.to_json()
