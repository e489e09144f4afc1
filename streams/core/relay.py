"""The relay: sends the outbox's rows to Kafka, in order per key, and marks them when the broker has them.

Several relays may run; each bucket is owned by one of them, by an advisory lock on the relay's own connection. Whoever loses
that connection loses the buckets and stops at once. Killed between sending and marking, the successor sends again: the
consumers' inboxes drop it. Rows are found by `published_at IS NULL`, never by id, because commits are not in the order of ids.
"""

import asyncio
import logging
from collections.abc import Sequence

import psycopg
from aiokafka import AIOKafkaProducer
from opentelemetry.trace import SpanKind
from psycopg.rows import dict_row

from schemas.ids import JourneyId
from streams.core import ready
from streams.core.bootstrap import Parts
from streams.core.outbox import BUCKETS, CHANNEL
from streams.core.producer import kafka_producer
from streams.core.telemetry import names, tracing

log = logging.getLogger(__name__)

_LOCK_CLASS = 0x0B0C  # names the outbox among the users of advisory locks
_BATCH = 500
_IDLE_S = 1.0  # how long to wait for a notification before looking anyway

_PENDING = """
    SELECT id, topic, key, headers, value FROM outbox
    WHERE published_at IS NULL AND bucket = ANY(%s)
    ORDER BY id LIMIT %s
"""
_MARK = "UPDATE outbox SET published_at = clock_timestamp() WHERE id = ANY(%s)"


class Relay:
    """`connection` must be this relay's alone, in autocommit."""

    def __init__(self, connection: psycopg.AsyncConnection, producer: AIOKafkaProducer) -> None:
        self._connection = connection
        self._producer = producer
        self.buckets: list[int] = []

    async def run(self) -> None:
        """Until cancelled. Raises psycopg.Error or KafkaError when it must start anew."""
        # A mark that is lost when the database crashes only means that its rows are sent again: nothing waits for the disk here.
        await self._connection.execute("SET synchronous_commit = off")
        await self._connection.execute(f"LISTEN {CHANNEL}")
        while True:
            await self._own()
            while await self.pass_on() == _BATCH:
                pass
            await self._wait()

    async def _own(self) -> None:
        """Take every bucket nobody else has."""
        for bucket in range(BUCKETS):
            if bucket not in self.buckets:
                cursor = await self._connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (_LOCK_CLASS, bucket))
                row = await cursor.fetchone()
                if row and row[0]:
                    self.buckets.append(bucket)

    async def _wait(self) -> None:
        """Until something was committed, or a while has passed."""
        async for _ in self._connection.notifies(timeout=_IDLE_S, stop_after=1):
            pass

    async def pass_on(self) -> int:
        """Send and mark one batch; returns its size."""
        async with self._connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(_PENDING, (self.buckets, _BATCH))
            rows = await cursor.fetchall()
        if rows:
            await self._send(rows)
            await self._connection.execute(_MARK, ([row["id"] for row in rows],))
        return len(rows)

    async def _send(self, rows: Sequence[dict[str, object]]) -> None:
        """Send in order, wait for all. Sending one key's rows through one idempotent producer keeps their order."""
        acknowledgements = []
        for row in rows:
            headers = dict(row["headers"])  # type: ignore[call-overload]
            topic = str(row["topic"])
            attributes = {
                names.MESSAGING_SYSTEM: "kafka",
                names.MESSAGING_OPERATION: "send",
                names.MESSAGING_DESTINATION: topic,
                names.EVENT_TYPE: headers["ce_type"],
                names.EVENT_ID: headers["ce_id"],
            }
            with tracing.span(
                f"send {topic}",
                kind=SpanKind.PRODUCER,
                journey=JourneyId(headers["ce_journeyid"]),
                parent=headers.get("ce_traceparent"),
                attributes=attributes,
            ):
                traceparent = tracing.current_traceparent()
                if traceparent:
                    headers["ce_traceparent"] = traceparent
                acknowledgements.append(
                    await self._producer.send(
                        topic, value=row["value"], key=row["key"], headers=[(k, v.encode()) for k, v in headers.items()]
                    )
                )
        await asyncio.gather(*acknowledgements)


async def run(parts: Parts) -> None:
    """The role. Until cancelled; an error that ends it lets its successor start anew."""
    producer = kafka_producer(parts.kafka())
    await producer.start()
    parts.closing.push_async_callback(producer.stop)
    connection = await psycopg.AsyncConnection.connect(parts.database_url(), autocommit=True, connect_timeout=5)
    parts.closing.push_async_callback(connection.close)
    ready.announce()
    await Relay(connection, producer).run()
