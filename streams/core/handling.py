"""The three ways of handling an event. Each says when its effects exist and when the event is done.

Transactional   everything in one transaction: inbox, rows, outbox. For decisions.
Effect          open (committed) → call the outside world → settle (inbox, rows, outbox). For money and webhooks.
Direct          compute, send acknowledged, no inbox. For answers whose repetition is harmless, because a repeated
                event makes events with the same ids again (docs/adr/0004).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from opentelemetry.trace import SpanKind

from schemas.events import Event
from streams.core import inbox
from streams.core.database import Database
from streams.core.groups import GroupCommit, Prepare
from streams.core.outbox import Transaction
from streams.core.producer import Producer
from streams.core.telemetry import names, tracing

Plan = TypeVar("Plan")
Result = TypeVar("Result")

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


class Effect(Generic[Plan, Result]):
    """`open` may return None: there is nothing to call, and the event is done."""

    def __init__(
        self,
        consumer: str,
        database: Database,
        *,
        open: Callable[[Event, Transaction], Awaitable[Plan | None]],
        call: Callable[[Plan], Awaitable[Result]],
        settle: Callable[[Event, Plan, Result, Transaction], Awaitable[None]],
    ) -> None:
        self._consumer = consumer
        self._group = GroupCommit(database, consumer)
        self._open = open
        self._call = call
        self._settle = settle

    async def __call__(self, event: Event) -> str:
        async def opening(unit: Transaction) -> Plan | str:
            if await inbox.was_handled(unit.connection, self._consumer, event.id):
                return DUPLICATE
            plan = await self._open(event, unit)
            if plan is None:
                await inbox.claim(unit.connection, self._consumer, event.id)
                return HANDLED
            return plan

        plan = await self._group.run(opening)
        if plan is None or isinstance(plan, str):
            return plan or DUPLICATE
        result = await self._call(plan)

        async def settling(unit: Transaction) -> str:
            await self._settle(event, plan, result, unit)
            return HANDLED

        return await self._group.run(settling, claim=event.id) or DUPLICATE


@dataclass(frozen=True)
class Direct:
    producer: Producer
    handle: Callable[[Event], Awaitable[Sequence[tuple[str, Event]]]]

    async def __call__(self, event: Event) -> str:
        for key, following in await self.handle(event):
            await self.producer.send(following, key=key)
        return HANDLED
