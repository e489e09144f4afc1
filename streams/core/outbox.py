"""Publishing with a transaction: events become rows, and the relay sends the rows. What was committed is published at least
once; what was rolled back never."""

import zlib
from dataclasses import dataclass, field

from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.events import CATALOGUE, Event, to_kafka
from schemas.tables import outbox
from streams.core.telemetry import tracing

BUCKETS = 8
"""Relays share the outbox by bucket. Changing it needs an empty outbox."""

CHANNEL = "outbox"


def bucket_of(key: str) -> int:
    """Events of one key are in one bucket, so that one relay sends them, in order."""
    return zlib.crc32(key.encode()) % BUCKETS


@dataclass
class Transaction:
    """A database transaction and the events that are published if it commits."""

    connection: AsyncConnection
    _rows: list[dict[str, object]] = field(default_factory=list)

    def publish(self, event: Event, *, key: str) -> None:
        """`key` orders events: the device for glasses.*, else the aggregate's id."""
        headers, value = to_kafka(event.model_copy(update={"traceparent": tracing.current_traceparent()}))
        self._rows.append(
            {
                "bucket": bucket_of(key),
                "topic": CATALOGUE[event.type].topic.name,
                "key": key.encode(),
                "headers": {name: raw.decode() for name, raw in headers},
                "value": value,
            }
        )

    async def flush(self) -> None:
        """Write the outbox rows. Called once, right before the commit."""
        if self._rows:
            await self.connection.execute(insert(outbox), self._rows)
            await self.connection.execute(text(f"NOTIFY {CHANNEL}"))
            self._rows.clear()
