"""The stage's SQL.

Rows are locked in one order everywhere (order, endpoint, deliveries, receipt), so that no two transactions wait for each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    CursorResult,
    any_,
    bindparam,
    exists,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import Text

from schemas.ids import DeliveryId, DeviceId, EndpointId, JourneyId, MerchantId, MessageId, OrderId, PaymentId
from schemas.tables import deliveries, delivery_attempts, endpoints, messages, payments, receipt_entries
from schemas.webhooks import WebhookMessage
from streams.core.statements import Statement

CHANNEL = "deliveries"
"""Notified when there may be something due."""

DELETED = "deleted"
"""The `disabled_reason` of an endpoint its merchant deleted. The row stays, because deliveries and receipts name it."""

_ORDER_LOCK_CLASS = 0x0DE2  # names the orders among the users of advisory locks
_ORDER_LOCK = Statement(
    text("""
    SELECT pg_advisory_xact_lock(:lock_class, number) FROM (
        SELECT DISTINCT hashtext(order_id) AS number FROM unnest(CAST(:order_ids AS text[])) AS given (order_id) ORDER BY 1
    ) AS sorted
    """)
)
_NOTIFY = Statement(text(f"NOTIFY {CHANNEL}"))

_NEXT_SEQUENCE = Statement(
    select((func.coalesce(func.max(messages.c.sequence), 0) + 1).label("sequence")).where(
        messages.c.order_id == bindparam("order")
    )
)
_ADD_MESSAGE = Statement(
    insert(messages),
    columns=("id", "merchant_id", "order_id", "sequence", "type", "journey_id", "event_id", "body", "trace"),
)
_ADDRESSEES = Statement(
    select(endpoints.c.id, endpoints.c.disabled_at)
    .where(
        endpoints.c.merchant_id == bindparam("merchant"),
        endpoints.c.disabled_reason.is_distinct_from(DELETED),
        or_(endpoints.c.event_types.is_(None), bindparam("wants", type_=Text) == any_(endpoints.c.event_types)),
    )
    .order_by(endpoints.c.id)
    .with_for_update(read=True)
)


async def notify(connection: AsyncConnection) -> None:
    """Wakes the dispatchers when the transaction commits."""
    _NOTIFY.later(connection)


# Fan-out.


async def lock_orders(connection: AsyncConnection, order_ids: Sequence[OrderId]) -> None:
    """Until the transaction ends, nobody else numbers their messages. Everybody locks several in the same order."""
    _ORDER_LOCK.later(connection, lock_class=_ORDER_LOCK_CLASS, order_ids=[str(order_id) for order_id in order_ids])


async def next_sequence(connection: AsyncConnection, order_id: OrderId, *, locked: bool = False) -> int:
    """The number of the order's next message, from 1 without gaps: the order stays locked until the transaction ends."""
    if not locked:
        await lock_orders(connection, [order_id])
    return int(await _NEXT_SEQUENCE.scalar(connection, order=order_id))


async def add_message(
    connection: AsyncConnection,
    message: WebhookMessage,
    *,
    merchant_id: MerchantId,
    journey_id: JourneyId,
    event_id: str,
    body: bytes,
    trace: str | None,
) -> None:
    _ADD_MESSAGE.later(
        connection,
        id=message.id,
        merchant_id=merchant_id,
        order_id=message.order_id,
        sequence=message.sequence,
        type=message.type,
        journey_id=journey_id,
        event_id=event_id,
        body=body,
        trace=trace,
    )


@dataclass(frozen=True)
class Addressee:
    endpoint_id: EndpointId
    disabled: bool


async def addressees(connection: AsyncConnection, merchant_id: MerchantId, event_type: str) -> list[Addressee]:
    """The merchant's endpoints that want this type. They stay share-locked until the transaction ends: one that is enabled
    meanwhile waits, and then sees the deliveries that were held for it."""
    rows = await _ADDRESSEES.all(connection, merchant=merchant_id, wants=event_type)
    return [Addressee(EndpointId(row.id), row.disabled_at is not None) for row in rows]


async def add_deliveries(connection: AsyncConnection, message_id: MessageId, to: Sequence[Addressee]) -> None:
    """One per endpoint, due now; held where the endpoint is disabled. One that is there already becomes due again."""
    if not to:
        return
    statement = upsert(deliveries).values(
        [
            {
                "id": DeliveryId.new(),
                "message_id": message_id,
                "endpoint_id": addressee.endpoint_id,
                "state": "held" if addressee.disabled else "pending",
                "next_attempt_at": None if addressee.disabled else func.clock_timestamp(),
            }
            for addressee in to
        ]
    )
    again = {name: statement.excluded[name] for name in ("state", "next_attempt_at")}
    await connection.execute(
        statement.on_conflict_do_update(index_elements=["message_id", "endpoint_id"], set_={**again, "ended_at": None})
    )


# Dispatch.


async def due(connection: AsyncConnection, full: Sequence[EndpointId], limit: int) -> list[tuple[DeliveryId, EndpointId]]:
    """What may be attempted now, the longest due first, leaving out the endpoints that have no room (`full`).

    A message waits while an earlier one of the same order has not yet been tried for the first time at the same endpoint, so
    that a merchant who answers hears an order's news in order. Once the earlier one has failed it waits no longer: a single
    message that a merchant cannot digest must not keep the order's later news from them for a day. They see the gap by the
    sequence, and can pull what is missing.
    """
    earlier_message, earlier = messages.alias(), deliveries.alias()
    first_comes = exists().where(
        earlier_message.c.order_id == messages.c.order_id,
        earlier_message.c.sequence < messages.c.sequence,
        earlier.c.message_id == earlier_message.c.id,
        earlier.c.endpoint_id == deliveries.c.endpoint_id,
        earlier.c.state == "pending",
        earlier.c.attempts == 0,
    )
    query = (
        select(deliveries.c.id, deliveries.c.endpoint_id)
        .join(messages, messages.c.id == deliveries.c.message_id)
        .where(
            deliveries.c.state == "pending",
            deliveries.c.next_attempt_at <= func.clock_timestamp(),
            deliveries.c.endpoint_id != func.all(bindparam("full", list(full), type_=ARRAY(Text))),
            ~first_comes,
        )
        .order_by(deliveries.c.next_attempt_at, messages.c.sequence)
        .limit(limit)
    )
    return [(DeliveryId(row.id), EndpointId(row.endpoint_id)) for row in await connection.execute(query)]


@dataclass(frozen=True)
class Claim:
    """A delivery that is this dispatcher's until `leased_until`."""

    delivery_id: DeliveryId
    endpoint_id: EndpointId
    message_id: MessageId
    journey_id: JourneyId
    order_id: OrderId
    sequence: int
    type: str
    body: bytes
    trace: str | None
    url: str
    secret_sealed: bytes
    attempts: int
    leased_until: datetime


async def claim(connection: AsyncConnection, chosen: Sequence[DeliveryId], lease: timedelta) -> list[Claim]:
    """Those of `chosen` that nobody else has taken meanwhile. Once committed they are due again only after the lease: if this
    process dies, another one takes them up then."""
    if not chosen:
        return []
    free = (
        select(deliveries.c.id)
        .where(
            deliveries.c.id.in_(chosen),
            deliveries.c.state == "pending",
            deliveries.c.next_attempt_at <= func.clock_timestamp(),
        )
        .with_for_update(skip_locked=True)
        .cte("free")
    )
    statement = (
        update(deliveries)
        .where(
            deliveries.c.id == free.c.id,
            messages.c.id == deliveries.c.message_id,
            endpoints.c.id == deliveries.c.endpoint_id,
        )
        .values(next_attempt_at=func.clock_timestamp() + lease)
        .returning(
            deliveries.c.id,
            deliveries.c.endpoint_id,
            deliveries.c.message_id,
            deliveries.c.attempts,
            deliveries.c.next_attempt_at,
            messages.c.journey_id,
            messages.c.order_id,
            messages.c.sequence,
            messages.c.type,
            messages.c.body,
            messages.c.trace,
            endpoints.c.url,
            endpoints.c.secret_sealed,
        )
    )
    claims = [
        Claim(
            delivery_id=DeliveryId(row.id),
            endpoint_id=EndpointId(row.endpoint_id),
            message_id=MessageId(row.message_id),
            journey_id=JourneyId(row.journey_id),
            order_id=OrderId(row.order_id),
            sequence=row.sequence,
            type=row.type,
            body=row.body,
            trace=row.trace,
            url=row.url,
            secret_sealed=row.secret_sealed,
            attempts=row.attempts,
            leased_until=row.next_attempt_at,
        )
        for row in await connection.execute(statement)
    ]
    return sorted(claims, key=lambda claim: chosen.index(claim.delivery_id))


# What came of an attempt.


@dataclass(frozen=True)
class Standing:
    """Where a delivery stands while its attempt is being recorded."""

    state: str
    attempts: int
    next_attempt_at: datetime | None
    acknowledged: bool


async def lock_delivery(connection: AsyncConnection, delivery_id: DeliveryId) -> Standing:
    query = select(deliveries.c.state, deliveries.c.attempts, deliveries.c.next_attempt_at).where(deliveries.c.id == delivery_id)
    row = (await connection.execute(query.with_for_update())).one()
    acknowledgement = exists().where(delivery_attempts.c.delivery_id == delivery_id, delivery_attempts.c.status.between(200, 299))
    acknowledged = (await connection.execute(select(acknowledgement))).scalar_one()
    return Standing(row.state, row.attempts, row.next_attempt_at, bool(acknowledged))


async def add_attempt(
    connection: AsyncConnection,
    delivery_id: DeliveryId,
    number: int,
    *,
    started_at: datetime,
    duration_us: int,
    status: int | None,
    error: str | None,
    response: str | None,
) -> None:
    await connection.execute(
        insert(delivery_attempts).values(
            delivery_id=delivery_id,
            number=number,
            started_at=started_at,
            duration_us=duration_us,
            status=status,
            error=error,
            response=response,
        )
    )
    await connection.execute(update(deliveries).where(deliveries.c.id == delivery_id).values(attempts=number))


async def end_delivery(connection: AsyncConnection, delivery_id: DeliveryId, state: str) -> None:
    """`delivered` or `failed`."""
    await connection.execute(
        update(deliveries)
        .where(deliveries.c.id == delivery_id)
        .values(state=state, next_attempt_at=None, ended_at=func.clock_timestamp())
    )


async def postpone(connection: AsyncConnection, delivery_id: DeliveryId, wait: timedelta) -> None:
    await connection.execute(
        update(deliveries).where(deliveries.c.id == delivery_id).values(next_attempt_at=func.clock_timestamp() + wait)
    )


# Endpoints.


async def add_endpoint(
    connection: AsyncConnection,
    endpoint_id: EndpointId,
    merchant_id: MerchantId,
    url: str,
    event_types: Sequence[str] | None,
    secret_sealed: bytes,
) -> None:
    await connection.execute(
        insert(endpoints).values(
            id=endpoint_id,
            merchant_id=merchant_id,
            url=url,
            event_types=list(event_types) if event_types is not None else None,
            secret_sealed=secret_sealed,
        )
    )


async def disable_endpoint(connection: AsyncConnection, endpoint_id: EndpointId, reason: str) -> None:
    """What is open is held. Nothing changes where it is disabled already."""
    await connection.execute(
        update(endpoints)
        .where(endpoints.c.id == endpoint_id, endpoints.c.disabled_at.is_(None))
        .values(disabled_at=func.clock_timestamp(), disabled_reason=reason)
    )
    await connection.execute(
        update(deliveries)
        .where(deliveries.c.endpoint_id == endpoint_id, deliveries.c.state == "pending")
        .values(state="held", next_attempt_at=None)
    )


async def enable_endpoint(connection: AsyncConnection, merchant_id: MerchantId, endpoint_id: EndpointId) -> bool:
    """What was held is due, all of it at one instant, so that it is taken up in its order. False where the merchant has no such
    endpoint."""
    found = await _change_endpoint(connection, merchant_id, endpoint_id, disabled_at=None, disabled_reason=None)
    if found:
        await connection.execute(
            update(deliveries)
            .where(deliveries.c.endpoint_id == endpoint_id, deliveries.c.state == "held")
            .values(state="pending", next_attempt_at=func.statement_timestamp())
        )
    return found


async def delete_endpoint(connection: AsyncConnection, merchant_id: MerchantId, endpoint_id: EndpointId) -> list[OrderId] | None:
    """What is open ends as failed; returns the orders it was about. None where the merchant has no such endpoint."""
    if not await _change_endpoint(
        connection,
        merchant_id,
        endpoint_id,
        disabled_at=func.clock_timestamp(),
        disabled_reason=DELETED,
        secret_sealed=b"",
    ):
        return None
    ended = (
        update(deliveries)
        .where(
            deliveries.c.endpoint_id == endpoint_id,
            deliveries.c.state.in_(("pending", "held")),
            messages.c.id == deliveries.c.message_id,
        )
        .values(state="failed", next_attempt_at=None, ended_at=func.clock_timestamp())
        .returning(messages.c.order_id)
    )
    return sorted({OrderId(row.order_id) for row in await connection.execute(ended)})


async def _change_endpoint(connection: AsyncConnection, merchant_id: MerchantId, endpoint_id: EndpointId, **values: Any) -> bool:
    statement = update(endpoints).where(
        endpoints.c.id == endpoint_id,
        endpoints.c.merchant_id == merchant_id,
        endpoints.c.disabled_reason.is_distinct_from(DELETED),
    )
    result: CursorResult[Any] = await connection.execute(statement.values(**values))
    return result.rowcount == 1


# The receipt's end.


@dataclass(frozen=True)
class Unclosed:
    """A payment whose receipt may be closed now."""

    payment_id: PaymentId
    journey_id: JourneyId
    device_id: DeviceId
    state: str


_told = exists().where(messages.c.order_id == payments.c.order_id, messages.c.type == "payment." + payments.c.state)
_unacknowledged = exists().where(
    messages.c.order_id == payments.c.order_id,
    deliveries.c.message_id == messages.c.id,
    deliveries.c.state != "delivered",
    endpoints.c.id == deliveries.c.endpoint_id,
    endpoints.c.disabled_reason.is_distinct_from(DELETED),
)
_closed = exists().where(
    receipt_entries.c.journey_id == payments.c.journey_id,
    receipt_entries.c.kind == "closed",
    receipt_entries.c.content["payment_id"].astext == payments.c.id,
)
_JOURNEY_OF = Statement(select(payments.c.journey_id).where(payments.c.order_id == bindparam("order")))
_TO_BE_CLOSED = Statement(
    select(payments.c.id, payments.c.journey_id, payments.c.device_id, payments.c.state).where(
        payments.c.order_id == bindparam("order"),
        payments.c.state == any_(bindparam("states", type_=ARRAY(Text))),
        _told,
        ~_unacknowledged,
        ~_closed,
    )
)


async def journey_of(connection: AsyncConnection, order_id: OrderId) -> JourneyId | None:
    found = await _JOURNEY_OF.scalar(connection, order=order_id)
    return JourneyId(found) if found else None


async def to_be_closed(connection: AsyncConnection, order_id: OrderId, closing_states: frozenset[str]) -> Unclosed | None:
    """The order's payment, if it is done, merchants have been told of it (its state has its message), everything they were told
    is acknowledged, and its receipt is not closed yet. The caller has locked the receipt."""
    row = await _TO_BE_CLOSED.first(connection, order=order_id, states=sorted(closing_states))
    if row is None:
        return None
    return Unclosed(PaymentId(row.id), JourneyId(row.journey_id), DeviceId(row.device_id), row.state)
