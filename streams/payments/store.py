"""The payments' SQL. Whoever changes a payment holds its row's lock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.digests import canonical_json, sha256_hex
from schemas.ids import AttemptId, JourneyId, MerchantId, OrderId, PaymentId, ProposalId
from schemas.money import Money
from schemas.payments import Authorise, CartLine, Outcome, PaymentState, ProposalTerms
from schemas.tables import attempts, devices, payments, proposals


@dataclass(frozen=True)
class StoredPayment:
    id: PaymentId
    proposal_id: ProposalId
    order_id: OrderId
    journey_id: JourneyId
    device_id: str
    merchant_id: MerchantId
    total: Money
    state: PaymentState
    provider: str
    provider_reference: str | None
    locale: str
    submit_by: datetime
    payee: str
    cart: tuple[CartLine, ...]
    payer_sealed: bytes | None


@dataclass(frozen=True)
class StoredAttempt:
    id: AttemptId
    reference: str | None
    asked: int
    next_ask_at: datetime
    created_at: datetime
    trace: str | None


def _payment(row: Row[Any]) -> StoredPayment:
    terms = ProposalTerms.model_validate(row.terms, strict=False)
    return StoredPayment(
        id=PaymentId(row.id),
        proposal_id=ProposalId(row.proposal_id),
        order_id=OrderId(row.order_id),
        journey_id=JourneyId(row.journey_id),
        device_id=row.device_id,
        merchant_id=MerchantId(row.merchant_id),
        total=Money.of(row.total_minor, row.total_currency),
        state=PaymentState(row.state),
        provider=row.provider,
        provider_reference=row.provider_reference,
        locale=row.locale,
        submit_by=row.submit_by,
        payee=terms.payee,
        cart=terms.cart,
        payer_sealed=row.payer_sealed,
    )


async def lock_payment(connection: AsyncConnection, payment_id: PaymentId) -> StoredPayment | None:
    query = (
        select(payments, proposals.c.terms, devices.c.payer_sealed)
        .join(proposals, proposals.c.id == payments.c.proposal_id)
        .join(devices, devices.c.id == payments.c.device_id)
        .where(payments.c.id == payment_id)
        .with_for_update(of=payments)
    )
    row = (await connection.execute(query)).one_or_none()
    return _payment(row) if row else None


async def set_state(
    connection: AsyncConnection,
    payment_id: PaymentId,
    state: PaymentState,
    *,
    reason: str | None,
    reference: str | None,
    now: datetime,
) -> None:
    """The database refuses a move that is not allowed."""
    values: dict[str, object] = {"state": state, "state_reason": reason, "updated_at": now}
    if reference is not None:
        values["provider_reference"] = reference
    await connection.execute(update(payments).where(payments.c.id == payment_id).values(values))


# Attempts.


def _attempt(row: Row[Any]) -> StoredAttempt:
    return StoredAttempt(
        id=AttemptId(row.id),
        reference=row.reference,
        asked=row.asked,
        next_ask_at=row.next_ask_at or datetime.max.replace(tzinfo=UTC),
        created_at=row.created_at,
        trace=row.trace,
    )


async def open_attempt(connection: AsyncConnection, command: Authorise, lease_until: datetime, trace: str | None) -> None:
    request = command.model_dump(mode="json", exclude={"payer", "reference"})
    await connection.execute(
        insert(attempts).values(
            id=command.attempt_id,
            payment_id=command.payment_id,
            kind=command.kind,
            request_digest=sha256_hex(canonical_json(request)),
            next_ask_at=lease_until,
            trace=trace,
        )
    )


async def running_attempt(connection: AsyncConnection, payment_id: PaymentId) -> StoredAttempt | None:
    query = select(attempts).where(attempts.c.payment_id == payment_id, attempts.c.ended_at.is_(None))
    row = (await connection.execute(query)).one_or_none()
    return _attempt(row) if row else None


async def lease_attempt(connection: AsyncConnection, attempt_id: AttemptId, until: datetime) -> None:
    await connection.execute(update(attempts).where(attempts.c.id == attempt_id).values(next_ask_at=until))


async def remember_reference(connection: AsyncConnection, attempt_id: AttemptId, reference: str) -> str:
    """The reference the attempt has from now on: this one, or the one that somebody else was quicker to put on record."""
    statement = (
        update(attempts)
        .where(attempts.c.id == attempt_id)
        .values(reference=func.coalesce(attempts.c.reference, reference))
        .returning(attempts.c.reference)
    )
    return str((await connection.execute(statement)).scalar_one())


async def record_outcome(
    connection: AsyncConnection, attempt_id: AttemptId, outcome: Outcome, *, final: bool, ask_at: datetime | None, now: datetime
) -> None:
    values: dict[str, object] = {
        "outcome": outcome.kind,
        "detail": outcome.model_dump(mode="json", exclude={"url"}),
        "asked": attempts.c.asked + 1,
        "next_ask_at": None if final else ask_at,
    }
    if outcome.reference is not None:
        values["reference"] = outcome.reference
    if final:
        values["ended_at"] = now
    await connection.execute(update(attempts).where(attempts.c.id == attempt_id).values(values))


@dataclass(frozen=True)
class Due:
    """A payment with an attempt that nobody has settled in time. `trace`: where its work belongs."""

    payment_id: PaymentId
    journey_id: JourneyId
    trace: str | None


async def stranded_payments(connection: AsyncConnection, since: datetime, limit: int) -> Sequence[tuple[PaymentId, JourneyId]]:
    """Approved payments that no worker has begun in time, whatever became of their command."""
    query = (
        select(payments.c.id, payments.c.journey_id)
        .where(payments.c.state == PaymentState.APPROVED, payments.c.updated_at <= since)
        .order_by(payments.c.updated_at)
        .limit(limit)
    )
    return [(PaymentId(row.id), JourneyId(row.journey_id)) for row in await connection.execute(query)]


async def put_off(connection: AsyncConnection, payment_id: PaymentId, until: datetime) -> None:
    """Nobody looks after it again before then."""
    await connection.execute(
        update(attempts).where(attempts.c.payment_id == payment_id, attempts.c.next_ask_at.is_not(None)).values(next_ask_at=until)
    )
    touched = update(payments).where(payments.c.id == payment_id, payments.c.state == PaymentState.APPROVED)
    await connection.execute(touched.values(updated_at=func.now()))


async def due_payments(connection: AsyncConnection, now: datetime, limit: int) -> Sequence[Due]:
    query = (
        select(attempts.c.payment_id, attempts.c.trace, payments.c.journey_id)
        .join(payments, payments.c.id == attempts.c.payment_id)
        .where(attempts.c.next_ask_at <= now)
        .order_by(attempts.c.next_ask_at)
        .limit(limit)
    )
    return [Due(PaymentId(row.payment_id), JourneyId(row.journey_id), row.trace) for row in await connection.execute(query)]
