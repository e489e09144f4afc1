"""The operator's hand: asking a provider now, and saying how a command ended where the provider's dashboard knows and its API
does not. Everybody is told as always, and what a person said stands in the receipt under that person's name."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.errors import FieldError, Rejected
from schemas.ids import PaymentId
from schemas.payments import PAYMENT_MOVES, Cancelled, Declined, Outcome, PaymentState, RefusedByProvider, Succeeded, Unknown
from schemas.tables import attempts
from streams.core.database import Database
from streams.core.handling import transaction
from streams.core.outbox import Transaction
from streams.core.statements import send_waiting
from streams.payments import service, store
from streams.payments.store import StoredAttempt, StoredPayment
from streams.payments.work import PaymentWork

End = Literal["succeeded", "declined", "failed", "cancelled"]
CODE = "resolved_by_operator"
_NOTE_LENGTH, _NAME_LENGTH = 500, 100


@dataclass(frozen=True)
class Resolution:
    """`outcome`: what the provider said, or a person; None where nobody was asked, and `why` says why not."""

    state: PaymentState
    frozen: bool
    outcome: Outcome | None
    why: str | None = None


async def ask(database: Database, work: PaymentWork, payment_id: PaymentId) -> Resolution:
    """Ask the provider now, and settle what is known then. A frozen payment is thawed only by an answer that fits and is final.
    Raises Rejected("not-found"), Misconfigured."""
    async with transaction(database) as unit:
        plan = await work.open(payment_id, unit, only_ask=True, by_operator=True)
    if plan is None:
        async with transaction(database) as unit:
            payment, attempt = await _find(unit.connection, payment_id)
        return Resolution(payment.state, payment.frozen, None, _why_not(payment, attempt))
    try:
        async with asyncio.timeout(service.CALL_S):
            outcome = await work.call(plan)
    except TimeoutError:
        outcome = Unknown(reference=plan.command.reference, reason="no answer in time")
    async with transaction(database) as unit:
        await work.settle(plan, outcome, unit)
    async with transaction(database) as unit:
        payment, _ = await _find(unit.connection, payment_id)
    return Resolution(payment.state, payment.frozen, outcome)


async def force(unit: Transaction, work: PaymentWork, payment_id: PaymentId, end: End, *, note: str, by: str) -> Resolution:
    """End the running command as `by` says it ended, and thaw the payment. Raises Rejected where that cannot be: there is no
    command, a worker is at it, it never began, or the payment's state does not allow the move."""
    note, by = _text("note", note, _NOTE_LENGTH), _text("by", by, _NAME_LENGTH)
    payment, attempt = await _find(unit.connection, payment_id)
    if attempt is None:
        raise Rejected("payment-state", _why_not(payment, None), instance=payment.id)
    if await _is_at_work(unit.connection, attempt):
        raise Rejected("payment-busy", f"a worker is at its {attempt.kind} right now: wait a minute", instance=payment.id)
    if attempt.begun_at is None and end == "succeeded":
        raise Rejected("payment-state", f"its {attempt.kind} has never begun, so it cannot have succeeded", instance=payment.id)
    outcome = outcome_of(end, payment, attempt)
    change = service.change(attempt.kind, outcome, payment.state, payment.captured, payment.refunded)
    if change.state not in (None, payment.state) and (payment.state, change.state) not in PAYMENT_MOVES:
        raise Rejected("payment-state", f"a payment that is {payment.state} cannot become {change.state}", instance=payment.id)
    content = {"payment_id": payment.id, "as": end, "note": note, "by": by, "attempt_id": attempt.id}
    try:
        unit.record(payment.journey_id, CODE, content)
        await work.end(payment, attempt, outcome, unit)
        await send_waiting(unit.connection)
    except IntegrityError as error:
        raise Rejected("payment-state", f"the database does not allow that of a payment that is {payment.state}") from error
    return Resolution(change.state or payment.state, frozen=False, outcome=outcome)


async def acknowledge(unit: Transaction, payment_id: PaymentId, *, note: str, by: str) -> Resolution:
    """Thaw a payment that was frozen after its last command had ended. Nothing moves by it: what the provider has too much is
    given back there, or by a refund of ours. Raises Rejected."""
    note, by = _text("note", note, _NOTE_LENGTH), _text("by", by, _NAME_LENGTH)
    payment, attempt = await _find(unit.connection, payment_id)
    if not payment.frozen:
        raise Rejected("payment-state", "it is not frozen: there is nothing to acknowledge", instance=payment.id)
    if attempt is not None:
        raise Rejected("payment-busy", f"its {attempt.kind} has not ended: say how it ended instead", instance=payment.id)
    await store.thaw(unit.connection, payment.id)
    content = {"payment_id": payment.id, "as": "acknowledged", "note": note, "by": by}
    unit.record(payment.journey_id, CODE, content)
    return Resolution(payment.state, frozen=False, outcome=None)


def outcome_of(end: End, payment: StoredPayment, attempt: StoredAttempt) -> Outcome:
    """What a provider would have answered. A cancellation that succeeded is a payment that is cancelled."""
    reference = attempt.reference or payment.provider_reference
    if attempt.kind == "cancel" and end == "succeeded":
        end = "cancelled"
    match end:
        case "succeeded":
            captured = payment.capture if attempt.kind == "authorise" else True
            return Succeeded(reference=reference, total=attempt.amount or payment.total, captured=captured)
        case "declined":
            return Declined(reference=reference, code=CODE, message="an operator said so")
        case "failed":
            return RefusedByProvider(reference=reference, code=CODE, message="an operator said so")
        case "cancelled":
            return Cancelled(reference=reference)


async def _find(connection: AsyncConnection, payment_id: PaymentId) -> tuple[StoredPayment, StoredAttempt | None]:
    payment = await store.lock_payment(connection, payment_id)
    if payment is None:
        raise Rejected("not-found", f"there is no payment {payment_id}")
    return payment, await store.running_attempt(connection, payment_id)


async def _is_at_work(connection: AsyncConnection, attempt: StoredAttempt) -> bool:
    query = select(attempts.c.leased_by).where(attempts.c.id == attempt.id)
    leased = (await connection.execute(query)).scalar_one() is not None
    return leased and attempt.next_ask_at is not None and attempt.next_ask_at > datetime.now(UTC)


def _why_not(payment: StoredPayment, attempt: StoredAttempt | None) -> str:
    if attempt is None and payment.frozen:
        return f"it is {payment.state} and frozen, and no command is running: look at the provider's books, then acknowledge it"
    if attempt is None and payment.state is PaymentState.APPROVED:
        return "it has not begun: the payments worker or the janitor takes it up, or cancel it"
    if attempt is None:
        return f"it is {payment.state}, and no command is running: all is known"
    return f"its {attempt.kind} has not come as far as the provider: there is nothing to ask about yet"


def _text(name: str, text: str, length: int) -> str:
    """It stands in the receipt for ever."""
    plain = " ".join(text.split())
    if not 1 <= len(plain) <= length or not plain.isprintable():
        detail = f"it must have 1 to {length} printable characters"
        raise Rejected("request-invalid", f"{name}: {detail}", errors=(FieldError(pointer=f"/{name}", detail=detail),))
    return plain
