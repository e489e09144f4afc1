"""The dispatcher: sends what is due to merchants' endpoints, and records what came of it.

Any number may run. Each takes deliveries for the length of a lease, commits that, and only then sends; what a killed one had in
hand is due again when its lease is over. So a message may arrive twice, always with the same `webhook-id`, and is never lost.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from time import perf_counter
from urllib.parse import urlsplit

import psycopg
import stamina
from opentelemetry.trace import SpanKind

from connectors.http import Deadlines, HttpClient
from schemas.errors import Misconfigured, OutcomeUnknown, Rejected, Retryable
from schemas.ids import EndpointId
from streams.core import ready, receipts
from streams.core.bootstrap import Parts
from streams.core.database import Database, is_unavailable
from streams.core.handling import transaction
from streams.core.outbox import Transaction
from streams.core.sealing import Sealer
from streams.core.telemetry import metrics, names, tracing
from streams.webhooks import schedule, service, signing, store
from streams.webhooks.closing import close_when_complete
from streams.webhooks.service import Answer, Decision, Delivered, EndpointGone, GivenUp, Retry
from streams.webhooks.store import Claim

log = logging.getLogger(__name__)

_AT_ONCE = 32
_AT_ONCE_PER_ENDPOINT = 4
_IDLE_S = 0.5  # how long to wait for a notification before looking anyway
_PATIENCE_S = 120.0  # how long to wait for a database that is away


class Dispatcher:
    def __init__(
        self,
        database: Database,
        client: HttpClient,
        sealer: Sealer,
        *,
        timeout_s: float = 15.0,
        waits: Sequence[float] = schedule.SCHEDULE_S,
    ) -> None:
        self._database = database
        self._client = client
        self._sealer = sealer
        self._timeout_s = timeout_s
        # Our own timeout comes first, and is told from other ways of not answering; the client's is only a backstop.
        self._deadlines = Deadlines(connect=2 * timeout_s, read=2 * timeout_s, total=2 * timeout_s)
        self._lease = timedelta(seconds=timeout_s * 2)
        self._waits = waits
        self._under_way: Counter[EndpointId] = Counter()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled. Raises what a database raises that stays away."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                for claim in await self._claim():
                    tasks.create_task(self._deliver(claim))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_IDLE_S):
                        await self._wake.wait()

    def wake(self) -> None:
        """There may be something due."""
        self._wake.set()

    async def _claim(self) -> list[Claim]:
        """No more than can be sent at once, or its lease would run out in a queue."""
        free = _AT_ONCE - self._under_way.total()
        if free <= 0:
            return []
        full = [endpoint for endpoint, count in self._under_way.items() if count >= _AT_ONCE_PER_ENDPOINT]
        async for attempt in stamina.retry_context(on=is_unavailable, attempts=None, timeout=_PATIENCE_S):
            with attempt:
                async with self._database.transaction() as connection:
                    due = await store.due(connection, full, limit=4 * free)
                    chosen = service.choose(due, self._under_way, free=free, per_endpoint=_AT_ONCE_PER_ENDPOINT)
                    claims = await store.claim(connection, chosen, self._lease)
        self._under_way.update(claim.endpoint_id for claim in claims)
        return claims

    async def _deliver(self, claim: Claim) -> None:
        """One attempt, to its record. An error of our own leaves the delivery to its lease, after which it is due again: it
        must neither end the dispatcher nor use up the merchant's attempts."""
        try:
            await self._attempt(claim)
        except Misconfigured as error:
            log.error("%s cannot be sent: %s", claim.delivery_id, error)  # noqa: TRY400 -- the message says it all
        except Exception:
            log.exception("the attempt of %s could not be recorded", claim.delivery_id)
        finally:
            self._under_way[claim.endpoint_id] -= 1
            if not self._under_way[claim.endpoint_id]:
                del self._under_way[claim.endpoint_id]
            self.wake()

    async def _attempt(self, claim: Claim) -> None:
        secret = self._sealer.open(claim.secret_sealed, f"endpoint:{claim.endpoint_id}").decode()
        attributes: dict[str, tracing.Attribute] = {
            names.HTTP_METHOD: "POST",
            names.SERVER_ADDRESS: urlsplit(claim.url).hostname or "",
            names.EVENT_TYPE: claim.type,
            names.ATTEMPT: claim.attempts + 1,
            names.BODY_SIZE: len(claim.body),
        }
        with tracing.span(
            "deliver webhook", kind=SpanKind.CLIENT, journey=claim.journey_id, parent=claim.trace, attributes=attributes
        ) as span:
            trace = tracing.current_traceparent()
            started_at, started = datetime.now(UTC), perf_counter()
            answer = await self._send(claim, secret)
            duration_us = int((perf_counter() - started) * 1e6)
            if answer.status is not None:
                tracing.annotate(span, {names.HTTP_STATUS: answer.status})
            if answer.status is None or not 200 <= answer.status < 300:
                tracing.fail(span, str(answer.status) if answer.status else "timeout" if answer.timed_out else "no-answer")
        decision = await self._record(claim, answer, started_at, duration_us, trace)
        metrics.count("augenblick.deliveries", result=decision.result)

    async def _send(self, claim: Claim, secret: str) -> Answer:
        """Never raises for what the other side does."""
        headers = signing.signed_headers(secret, claim.message_id, datetime.now(UTC), claim.body)
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.post(claim.url, claim.body, headers=headers, deadlines=self._deadlines)
        except TimeoutError:
            return Answer(error=f"No answer within {self._timeout_s:g} s.", timed_out=True)
        except (Rejected, Retryable, OutcomeUnknown) as error:
            return Answer(error=str(error))
        return Answer(status=answer.status, excerpt=answer.excerpt, retry_after_s=answer.retry_after_s)

    async def _record(self, claim: Claim, answer: Answer, started_at: datetime, duration_us: int, trace: str | None) -> Decision:
        async for attempt in stamina.retry_context(on=is_unavailable, attempts=None, timeout=_PATIENCE_S):
            with attempt, tracing.span("record delivery", journey=claim.journey_id, parent=trace):
                async with transaction(self._database) as unit:
                    return await record(unit, claim, answer, started_at, duration_us, self._waits)
        raise AssertionError("unreachable: the attempts end with a result or an error")


async def record(
    unit: Transaction, claim: Claim, answer: Answer, started_at: datetime, duration_us: int, waits: Sequence[float]
) -> Decision:
    """Put an attempt on record, with all that follows from it.

    The lease may have run out and the delivery be in other hands by now. An acknowledgement, and word that the endpoint
    is gone, count even so; whatever else came back then changes nothing.
    """
    connection = unit.connection
    if answer.status == 410:
        await store.disable_endpoint(connection, claim.endpoint_id, "gone")
    standing = await store.lock_delivery(connection, claim.delivery_id)
    decision = service.decide(answer, standing.attempts, waits)
    await store.add_attempt(
        connection,
        claim.delivery_id,
        standing.attempts + 1,
        started_at=started_at,
        duration_us=duration_us,
        status=answer.status,
        error=answer.error,
        response=answer.excerpt,
    )
    ours = standing.state == "pending" and standing.next_attempt_at == claim.leased_until
    match decision:
        case Delivered():
            await _acknowledged(unit, claim, answer, first_time=not standing.acknowledged)
        case Retry(after_s) if ours:
            await store.postpone(connection, claim.delivery_id, timedelta(seconds=after_s))
        case GivenUp() if ours:
            await store.end_delivery(connection, claim.delivery_id, "failed")
        case EndpointGone() | Retry() | GivenUp():
            pass
    return decision


async def _acknowledged(unit: Transaction, claim: Claim, answer: Answer, *, first_time: bool) -> None:
    await store.end_delivery(unit.connection, claim.delivery_id, "delivered")
    if first_time:  # what is sent again on request is acknowledged again, but proves nothing new
        content = {
            "message_id": claim.message_id,
            "endpoint_id": claim.endpoint_id,
            "order_id": claim.order_id,
            "sequence": claim.sequence,
            "status": answer.status,
        }
        await receipts.append(unit.connection, claim.journey_id, "webhook_acknowledged", content)
    await close_when_complete(unit, claim.order_id)


async def _listen(url: str, dispatcher: Dispatcher) -> None:
    """Wakes the dispatcher at every notification. Only a convenience: without it the dispatcher looks by itself."""
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=5) as connection:
                await connection.execute(f"LISTEN {store.CHANNEL}")
                dispatcher.wake()
                async for _ in connection.notifies():
                    dispatcher.wake()
        except psycopg.OperationalError:
            log.warning("the database does not answer; listening again in a second")
        await asyncio.sleep(1)


async def run(parts: Parts) -> None:
    """The role. Until cancelled; an error that ends it lets its successor start anew."""
    settings = parts.settings
    client = HttpClient(allow_private=settings.allow_private_endpoints, max_connections=2 * _AT_ONCE)
    parts.closing.push_async_callback(client.close)
    dispatcher = Dispatcher(
        parts.database(),
        client,
        parts.sealer(),
        timeout_s=settings.webhook_timeout_s,
        waits=schedule.SCHEDULE_S if settings.webhook_schedule_s is None else settings.webhook_schedule_s,
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_listen(parts.database_url(), dispatcher))
        tasks.create_task(dispatcher.run())
        ready.announce()
