"""What operators are shown of accounts, payments and notifications: read only, without secrets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.ids import AccountId, MerchantId, PaymentId
from schemas.money import Money
from schemas.payments import SETTLED_STATES, PaymentState
from schemas.tables import attempts, merchants, payments, provider_accounts, provider_notifications
from streams.core import receipts
from streams.core.receipts import Entry

# What a removed account is still asked about, or still has to take or let go of.
_OPEN_STATES = frozenset(PaymentState) - SETTLED_STATES | {PaymentState.AUTHORISED}


@dataclass(frozen=True)
class ShownAccount:
    """`external_id` is the provider's public name of it; `currencies` None for any."""

    id: AccountId
    merchant_id: MerchantId
    merchant: str
    provider: str
    external_id: str
    currencies: tuple[str, ...] | None
    created_at: datetime
    updated_at: datetime
    removed_at: datetime | None


@dataclass(frozen=True)
class Unmatched:
    """A verified notification about something that is no payment of ours."""

    account_id: AccountId
    provider: str
    event_id: str
    kind: str
    reference: str
    amount: Money | None
    repeated: int
    occurred_at: datetime
    received_at: datetime


@dataclass(frozen=True)
class ShownPayment:
    """All that is on record of one payment; `entries` are its receipt's that name it."""

    payment: Mapping[str, Any]
    attempts: Sequence[Mapping[str, Any]]
    notifications: Sequence[Mapping[str, Any]]
    entries: Sequence[Entry]


async def list_accounts(
    connection: AsyncConnection, *, merchant_id: MerchantId | None = None, provider: str | None = None
) -> list[ShownAccount]:
    columns = provider_accounts.c
    query = select(provider_accounts, merchants.c.name).join(merchants, merchants.c.id == columns.merchant_id)
    if merchant_id is not None:
        query = query.where(columns.merchant_id == merchant_id)
    if provider is not None:
        query = query.where(columns.provider == provider)
    return [
        ShownAccount(
            id=AccountId(row.id),
            merchant_id=MerchantId(row.merchant_id),
            merchant=row.name,
            provider=row.provider,
            external_id=row.external_id,
            currencies=tuple(row.currencies) if row.currencies is not None else None,
            created_at=row.created_at,
            updated_at=row.updated_at,
            removed_at=row.removed_at,
        )
        for row in await connection.execute(query.order_by(columns.created_at, columns.id))
    ]


async def open_payments(connection: AsyncConnection, account_id: AccountId) -> int:
    """How many payments of the account are not over: not known, reserved only, or with a command that runs."""
    running = select(attempts.c.payment_id).where(attempts.c.payment_id == payments.c.id, attempts.c.ended_at.is_(None))
    not_over = payments.c.state.in_(_OPEN_STATES) | running.exists()
    query = select(func.count()).select_from(payments).where(payments.c.account_id == account_id, not_over)
    return int((await connection.execute(query)).scalar_one())


async def unmatched(connection: AsyncConnection, older_than: timedelta, limit: int) -> list[Unmatched]:
    """Longest first. A payment's reference is on record before any notification can come: these never find theirs."""
    columns = provider_notifications.c
    query = (
        select(provider_notifications, provider_accounts.c.provider)
        .join(provider_accounts, provider_accounts.c.id == columns.account_id)
        .where(columns.state == "unmatched", columns.received_at < func.now() - older_than)
        .order_by(columns.received_at)
        .limit(limit)
    )
    return [
        Unmatched(
            account_id=AccountId(row.account_id),
            provider=row.provider,
            event_id=row.event_id,
            kind=row.kind,
            reference=row.reference,
            amount=_money(row.amount_minor, row.amount_currency),
            repeated=row.repeated,
            occurred_at=row.occurred_at,
            received_at=row.received_at,
        )
        for row in await connection.execute(query)
    ]


def _money(minor: int | None, currency: str | None) -> Money | None:
    return Money.of(minor, currency) if minor is not None and currency is not None else None


async def currency_of(connection: AsyncConnection, payment_id: PaymentId) -> str | None:
    query = select(payments.c.total_currency).where(payments.c.id == payment_id)
    return (await connection.execute(query)).scalar_one_or_none()


async def show_payment(connection: AsyncConnection, payment_id: PaymentId) -> ShownPayment | None:
    found = await _rows(connection, select(payments).where(payments.c.id == payment_id))
    if not found:
        return None
    attempted = select(attempts).where(attempts.c.payment_id == payment_id).order_by(attempts.c.created_at, attempts.c.id)
    told = select(provider_notifications).where(provider_notifications.c.payment_id == payment_id)
    entries = (await receipts.load(connection, [found[0]["journey_id"]])).get(found[0]["journey_id"], [])
    return ShownPayment(
        payment=found[0],
        attempts=await _rows(connection, attempted),
        notifications=await _rows(connection, told.order_by(provider_notifications.c.received_at)),
        entries=[entry for entry in entries if entry.content.get("payment_id") in (None, payment_id)],
    )


async def _rows(connection: AsyncConnection, query: Select[Any]) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in await connection.execute(query)]  # noqa: SLF001 (SQLAlchemy's public name for it)
