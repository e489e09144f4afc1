"""Publishing with a transaction: events become rows, and the relay sends the rows. What was committed is published at least
once; what was rolled back never."""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.events import CATALOGUE, Event, to_kafka
from schemas.ids import JourneyId
from streams.core import receipts
from streams.core.receipts import Head, NewEntry
from streams.core.statements import Statement
from streams.core.telemetry import tracing

BUCKETS = 8
"""Relays share the outbox by bucket. Changing it needs an empty outbox."""

CHANNEL = "outbox"

# Ids are given in the order of the rows. One document, because to write lists costs the driver several times as much.
_PUBLISH = Statement(
    text("""
    WITH written AS (
        INSERT INTO outbox (bucket, topic, key, headers, value)
        SELECT bucket, topic, convert_to(key, 'UTF8'), headers, convert_to(value, 'UTF8')
        FROM json_to_recordset(CAST(:rows AS json)) AS event (bucket integer, topic text, key text, headers jsonb, value text)
    )
    SELECT pg_notify(:channel, '')
    """)
)


def bucket_of(key: str) -> int:
    """Events of one key are in one bucket, so that one relay sends them, in order."""
    return zlib.crc32(key.encode()) % BUCKETS


@dataclass
class Transaction:
    """A database transaction and the events that are published if it commits, with the entries that it adds to receipts.

    `prepared` has what was locked and read in advance, for whoever takes it out: who comes second reads what the first has made
    of it."""

    connection: AsyncConnection
    prepared: dict[Any, Any] = field(default_factory=dict)
    _rows: list[dict[str, object]] = field(default_factory=list)
    _entries: list[tuple[NewEntry, Callable[[Head], None] | None]] = field(default_factory=list)

    def publish(self, event: Event, *, key: str) -> None:
        """`key` orders events: the device for glasses.*, else the aggregate's id."""
        headers, value = to_kafka(event, traceparent=tracing.current_traceparent())
        self._rows.append(
            {
                "bucket": bucket_of(key),
                "topic": CATALOGUE[event.type].topic.name,
                "key": key,
                "headers": {name: raw.decode() for name, raw in headers},
                "value": value.decode(),
            }
        )

    def record(
        self,
        journey_id: JourneyId,
        kind: str,
        content: dict[str, Any],
        *,
        only_first: bool = False,
        then: Callable[[Head], None] | None = None,
    ) -> None:
        """Add an entry to a journey's receipt. It is written at the end, with all the others: receipts stay locked as shortly as
        can be. See `receipts.NewEntry`. `then` is told where it stands, and may publish."""
        self._entries.append((NewEntry(journey_id, kind, content, only_first), then))

    async def flush(self) -> None:
        """Write the outbox rows and the entries. Called once, right before the commit."""
        if self._entries:
            entries, self._entries = self._entries, []
            heads = await receipts.append_all(self.connection, [entry for entry, _ in entries])
            for (_, then), head in zip(entries, heads, strict=True):
                if then is not None and head is not None:
                    then(head)
        if self._rows:
            rows, self._rows = self._rows, []
            _PUBLISH.later(self.connection, rows=json.dumps(rows), channel=CHANNEL)
