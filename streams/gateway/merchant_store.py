"""The merchants' API's SQL. Every query names the merchant: what belongs to another one does not exist here."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, RowMapping, Select, exists, insert, or_, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.ids import EndpointId, MerchantId, MessageId, OrderId, PaymentId
from schemas.tables import attempts, deliveries, endpoints, idempotency_keys, merchants, messages, payments, proposals
from streams.webhooks.store import DELETED

_KEY_LOCK_CLASS = 0x1DE7  # names the idempotency keys among the users of advisory locks
_TRY_KEY = text("SELECT pg_try_advisory_xact_lock(:lock_class, hashtext(:key))")


async def find_merchant(connection: AsyncConnection, token_hash: bytes) -> MerchantId | None:
    query = select(merchants.c.id, merchants.c.token_hash).where(merchants.c.token_hash == token_hash)
    row = (await connection.execute(query)).one_or_none()
    return MerchantId(row.id) if row and hmac.compare_digest(row.token_hash, token_hash) else None


# Idempotency keys.


@dataclass(frozen=True)
class StoredAnswer:
    request_digest: str
    status: int
    response: dict[str, Any]


async def take_key(connection: AsyncConnection, merchant_id: MerchantId, key: str) -> bool:
    """Until the transaction ends, the key is this request's. False where another request has it. A lock and not a row, so that
    a request that dies leaves nothing behind."""
    taken = await connection.execute(_TRY_KEY, {"lock_class": _KEY_LOCK_CLASS, "key": f"{merchant_id} {key}"})
    return bool(taken.scalar_one())


async def find_answer(connection: AsyncConnection, merchant_id: MerchantId, key: str) -> StoredAnswer | None:
    columns = idempotency_keys.c
    query = select(columns.request_digest, columns.status, columns.response).where(
        columns.merchant_id == merchant_id, columns.key == key
    )
    row = (await connection.execute(query)).one_or_none()
    return StoredAnswer(row.request_digest, row.status, row.response) if row else None


async def keep_answer(connection: AsyncConnection, merchant_id: MerchantId, key: str, answer: StoredAnswer) -> None:
    await connection.execute(
        insert(idempotency_keys).values(
            merchant_id=merchant_id,
            key=key,
            request_digest=answer.request_digest,
            status=answer.status,
            response=answer.response,
        )
    )


# Endpoints.


def _endpoints(merchant_id: MerchantId) -> Select[*tuple[Any, ...]]:
    columns = endpoints.c
    return (
        select(columns.id, columns.url, columns.event_types, columns.disabled_at, columns.disabled_reason, columns.created_at)
        .where(columns.merchant_id == merchant_id, columns.disabled_reason.is_distinct_from(DELETED))
        .order_by(columns.id)
    )


async def list_endpoints(connection: AsyncConnection, merchant_id: MerchantId) -> Sequence[RowMapping]:
    return (await connection.execute(_endpoints(merchant_id))).mappings().all()


async def find_endpoint(connection: AsyncConnection, merchant_id: MerchantId, endpoint_id: EndpointId) -> RowMapping | None:
    return (await connection.execute(_endpoints(merchant_id).where(endpoints.c.id == endpoint_id))).mappings().one_or_none()


# Orders and messages.


async def has_order(connection: AsyncConnection, merchant_id: MerchantId, order_id: OrderId) -> bool:
    """Told of, or about to be."""
    known = or_(
        exists().where(payments.c.order_id == order_id, payments.c.merchant_id == merchant_id),
        exists().where(messages.c.order_id == order_id, messages.c.merchant_id == merchant_id),
    )
    return bool((await connection.execute(select(known))).scalar_one())


async def bodies_after(
    connection: AsyncConnection, merchant_id: MerchantId, order_id: OrderId, after: int, limit: int
) -> list[bytes]:
    query = (
        select(messages.c.body)
        .where(messages.c.order_id == order_id, messages.c.merchant_id == merchant_id, messages.c.sequence > after)
        .order_by(messages.c.sequence)
        .limit(limit)
    )
    return [bytes(body) for body in (await connection.execute(query)).scalars()]


async def type_of_message(connection: AsyncConnection, merchant_id: MerchantId, message_id: MessageId) -> str | None:
    query = select(messages.c.type).where(messages.c.id == message_id, messages.c.merchant_id == merchant_id)
    return (await connection.execute(query)).scalar_one_or_none()


async def deliveries_of(connection: AsyncConnection, message_id: MessageId) -> Sequence[RowMapping]:
    columns = deliveries.c
    query = (
        select(columns.id, columns.endpoint_id, columns.state, columns.attempts, columns.next_attempt_at)
        .join(endpoints, endpoints.c.id == columns.endpoint_id)
        .where(columns.message_id == message_id, endpoints.c.disabled_reason.is_distinct_from(DELETED))
        .order_by(columns.endpoint_id)
    )
    return (await connection.execute(query)).mappings().all()


# Payments.


def _payments(merchant_id: MerchantId) -> Select[*tuple[Any, ...]]:
    return (
        select(payments, proposals.c.terms["cart"].label("cart"))
        .join(proposals, proposals.c.id == payments.c.proposal_id)
        .where(payments.c.merchant_id == merchant_id)
    )


async def find_payment(connection: AsyncConnection, merchant_id: MerchantId, payment_id: PaymentId) -> Row[Any] | None:
    return (await connection.execute(_payments(merchant_id).where(payments.c.id == payment_id))).one_or_none()


async def list_attempts(connection: AsyncConnection, payment_id: PaymentId) -> Sequence[Any]:
    """First to last."""
    columns = attempts.c
    query = (
        select(columns.id, columns.kind, columns.amount_minor, columns.outcome, columns.created_at, columns.ended_at)
        .where(columns.payment_id == payment_id)
        .order_by(columns.created_at, columns.id)
    )
    return (await connection.execute(query)).all()


async def list_payments(
    connection: AsyncConnection, merchant_id: MerchantId, before: PaymentId | None, limit: int
) -> Sequence[Row[Any]]:
    """Newest first; with `before`, those older than that payment, which must be the merchant's."""
    query = _payments(merchant_id).order_by(payments.c.created_at.desc(), payments.c.id.desc()).limit(limit)
    if before is not None:
        last = payments.alias()
        position = select(last.c.created_at, last.c.id).where(last.c.id == before, last.c.merchant_id == merchant_id)
        query = query.where(tuple_(payments.c.created_at, payments.c.id) < position.scalar_subquery())
    return (await connection.execute(query)).all()
