"""The ways of handling an event. Each says when its effects exist and when the event is done.

Transactional   everything in one transaction: inbox, rows, outbox. For decisions. A call to the outside world is put on record
                there, and made beside (streams/payments).
Direct          compute, send acknowledged, no inbox. For answers whose repetition is harmless, because a repeated
                event makes events with the same ids again (docs/adr/0004).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from opentelemetry.trace import SpanKind

from schemas.events import Event
from streams.core.database import Database
from streams.core.groups import GroupCommit, Prepare
from streams.core.outbox import Transaction
from streams.core.producer import Producer
from streams.core.telemetry import names, tracing

HANDLED, DUPLICATE = "handled", "duplicate"


class Handling(Protocol):
    async def __call__(self, event: Event) -> str:
        """Handle one event; returns HANDLED or DUPLICATE. Raises what the loop knows how to treat."""


@asynccontextmanager
async def transaction(database: Database) -> AsyncIterator[Transaction]:
    """One transaction with its outbox, as one span."""
    attributes = {names.DATABASE_SYSTEM: "postgresql", names.DATABASE_OPERATION: "transaction"}
    with tracing.span("transaction postgresql", kind=SpanKind.CLIENT, attributes=attributes):
        async with database.transaction() as connection:
            unit = Transaction(connection)
            yield unit
            await unit.flush()


class Transactional:
    """`about` says what an event is about, for `prepare` (see streams.core.groups)."""

    def __init__(
        self,
        consumer: str,
        database: Database,
        handle: Callable[[Event, Transaction], Awaitable[None]],
        *,
        about: Callable[[Event], Hashable] | None = None,
        prepare: Prepare | None = None,
    ) -> None:
        self._group = GroupCommit(database, consumer, prepare=prepare)
        self._handle = handle
        self._about = about

    async def __call__(self, event: Event) -> str:
        async def work(unit: Transaction) -> str:
            await self._handle(event, unit)
            return HANDLED

        about = self._about(event) if self._about is not None else None
        return await self._group.run(work, claim=event.id, about=about) or DUPLICATE


@dataclass(frozen=True)
class Direct:
    producer: Producer
    handle: Callable[[Event], Awaitable[Sequence[tuple[str, Event]]]]

    async def __call__(self, event: Event) -> str:
        for key, following in await self.handle(event):
            await self.producer.send(following, key=key)
        return HANDLED
