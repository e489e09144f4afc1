"""The one safe consume loop. Bytes in; a window of events in flight; acknowledgement in order, after the commit.

What happens to an event:

    malformed, rejected       a dead letter, at once
    past its deadline         counted and passed over, where the consumer `sheds_late`, also while it waits for its turn
    Retryable, or a bug       tried again a few times, then a dead letter
    database or broker away   waited for, up to `patience_s`; then the worker crashes and its successor takes over
    handled                   acknowledged, once every earlier event of the partition is

Events of one key are handled one after the other; different keys overlap. Nothing else decides about acknowledgement, so
that a crash at any point repeats events and loses none (tests/chaos).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter

import stamina
from aiokafka.errors import KafkaError
from opentelemetry.trace import SpanKind

from schemas.errors import Misconfigured, Rejected
from schemas.events import Event, from_kafka
from schemas.topics import Topic
from streams.core import deadletters, inbox
from streams.core.database import Database, is_unavailable
from streams.core.deadletters import Reason, Record
from streams.core.handling import DUPLICATE, Handling
from streams.core.telemetry import metrics, names, tracing
from streams.core.window import NewestFirst, OrderedAck, Overtaken

log = logging.getLogger(__name__)

LATE = "late"

_FIRST_WAIT_S = 0.05


@dataclass(frozen=True)
class Consumer:
    """One stage's reading: `name` is the Kafka consumer group and the inbox's name, and must never change. With `sheds_late`
    an event has until its own deadline and no longer: for answers that nobody waits for any more. `window` events are taken at
    once. With `at_once`, so many of them are in hand; the others wait, the newest is next, and the oldest are late where there
    are too many."""

    name: str
    topics: tuple[Topic, ...]
    handling: Handling
    event_types: frozenset[str] = field(default_factory=frozenset)
    window: int = 16
    attempts: int = 3
    timeout_s: float = 30.0
    patience_s: float = 120.0
    sheds_late: bool = False
    at_once: int | None = None

    def time_for(self, event: Event) -> float:
        """The seconds that handling it may take from now."""
        if not self.sheds_late or event.deadline is None:
            return self.timeout_s
        return min(self.timeout_s, (event.deadline - datetime.now(UTC)).total_seconds())


def _unavailable(error: Exception) -> bool:
    return is_unavailable(error) or isinstance(error, KafkaError)


class ConsumeLoop:
    """`take` is given every record and how to acknowledge one. It returns when the window has room for the next."""

    def __init__(self, consumer: Consumer, database: Database, tasks: asyncio.TaskGroup) -> None:
        self._consumer = consumer
        self._database = database
        self._tasks = tasks
        self._room = asyncio.Semaphore(consumer.window)
        at_once = consumer.at_once or consumer.window
        # One less than there is room for: there is always room for a newer one.
        self._turns = NewestFirst(at_once, waiting=max(consumer.window - at_once - 1, 0))
        self._order = OrderedAck()
        self._acks: dict[tuple[str, int, int], Callable[[], Awaitable[object]]] = {}
        self._last_of_key: dict[bytes, asyncio.Task[None]] = {}

    async def take(self, record: Record, acknowledge: Callable[[], Awaitable[object]]) -> None:
        await self._room.acquire()
        self._order.arrive((record.topic, record.partition), record.offset)
        self._acks[record.topic, record.partition, record.offset] = acknowledge
        key = record.key or f"{record.topic}/{record.partition}".encode()
        task = self._tasks.create_task(self._run(record, self._last_of_key.get(key)))
        self._last_of_key[key] = task
        task.add_done_callback(lambda done: self._forget(key, done))

    def _forget(self, key: bytes, done: asyncio.Task[None]) -> None:
        if self._last_of_key.get(key) is done:
            del self._last_of_key[key]

    async def _run(self, record: Record, before: asyncio.Task[None] | None) -> None:
        try:
            if before is not None:
                await asyncio.wait([before])
            await self._handle(record)
            for offset in self._order.finish((record.topic, record.partition), record.offset):
                await self._acks.pop((record.topic, record.partition, offset))()
        finally:
            self._room.release()

    async def _handle(self, record: Record) -> None:
        started = perf_counter()
        try:
            event = from_kafka(record.headers, record.value)
        except Rejected as error:
            await self._bury(record, None, error, attempts=1)
            return
        attributes: dict[str, tracing.Attribute] = {
            names.MESSAGING_SYSTEM: "kafka",
            names.MESSAGING_OPERATION: "process",
            names.MESSAGING_DESTINATION: record.topic,
            names.MESSAGING_GROUP: self._consumer.name,
            names.MESSAGING_PARTITION: str(record.partition),
            names.MESSAGING_OFFSET: record.offset,
            names.EVENT_TYPE: event.type,
            names.EVENT_ID: event.id,
        }
        with tracing.span(
            f"process {record.topic}",
            kind=SpanKind.CONSUMER,
            journey=event.journeyid,
            parent=event.traceparent,
            attributes=attributes,
        ) as span:
            outcome = await self._attempt(record, event)
            tracing.annotate(span, {names.OUTCOME: outcome})
            if outcome == "dead-lettered":
                tracing.fail(span, outcome)
        metrics.record("messaging.process.duration", perf_counter() - started, consumer=self._consumer.name, outcome=outcome)
        if outcome == LATE:
            metrics.count("augenblick.late", consumer=self._consumer.name)
        if outcome == DUPLICATE:
            metrics.count("augenblick.duplicates", consumer=self._consumer.name)

    async def _attempt(self, record: Record, event: Event) -> str:
        """Try as often as it is worth it. Returns how it ended; raises only to crash the worker."""
        tries = 0

        def worth_trying_again(error: Exception) -> bool:
            if isinstance(error, Rejected | Misconfigured):
                return False
            return _unavailable(error) or tries < self._consumer.attempts

        async def once() -> str:
            nonlocal tries
            tries += 1
            if self._consumer.event_types and event.type not in self._consumer.event_types:
                raise Rejected("event-type-unknown", f"{self._consumer.name} does not handle {event.type}")
            time_left = self._consumer.time_for(event)
            if time_left <= 0:
                return LATE
            try:
                async with asyncio.timeout(time_left), self._turns:
                    return await self._consumer.handling(event)
            except Overtaken:
                return LATE
            except TimeoutError:
                if self._consumer.time_for(event) <= 0:
                    return LATE
                raise

        try:
            # Nearly all succeed at once, and need not pay for what the others need.
            try:
                return await once()
            except Exception as error:
                if not worth_trying_again(error):
                    raise
            await asyncio.sleep(_FIRST_WAIT_S)
            async for attempt in stamina.retry_context(
                on=worth_trying_again,
                attempts=None,
                timeout=self._consumer.patience_s,
                wait_initial=2 * _FIRST_WAIT_S,
                wait_max=2.0,
                wait_jitter=0.1,
            ):
                with attempt:
                    return await once()
        except Exception as error:
            if _unavailable(error):
                raise
            if not isinstance(error, Rejected):
                log.warning("%s could not handle %s: %s", self._consumer.name, event.id, Reason.of(error).detail)
            return await self._bury(record, event, error, attempts=tries)
        raise AssertionError("unreachable: the attempts end with a result or an error")

    async def _bury(self, record: Record, event: Event | None, error: Exception, *, attempts: int) -> str:
        reason = Reason.of(error)
        async for attempt in stamina.retry_context(on=_unavailable, attempts=None, timeout=self._consumer.patience_s):
            with attempt:
                async with self._database.transaction() as connection:
                    if event is not None and not await inbox.claim(connection, self._consumer.name, event.id):
                        return DUPLICATE
                    await deadletters.write(connection, self._consumer.name, record, event, reason, attempts)
        metrics.count("augenblick.dead_letters", consumer=self._consumer.name, reason=reason.code)
        return "dead-lettered"
